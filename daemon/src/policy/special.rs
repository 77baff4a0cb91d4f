//! Special-purpose addresses (IANA registries) that no public name may teach.
