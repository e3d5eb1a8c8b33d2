//! A UDP socket, polled from a driver: one file for each kind of system, both of one shape.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod moderation;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::Udp;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod portable;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use portable::Udp;
