//! Grants: what each zone may reach now, with the reasons.
