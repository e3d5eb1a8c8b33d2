//! The KCP machine: windows, acknowledgements, resend.
