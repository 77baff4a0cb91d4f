//! Follows the kernel's interfaces and addresses (rtnetlink) and hands them on as values.
