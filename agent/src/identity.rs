//! Receives a state directory; hands on the instance's key and what the collector issued for it.
//!
//! The key is made here on first boot and never leaves. Every file is replaced whole, so that a crash leaves an
//! instance either enrolled or able to ask again with the same key.

mod key;
mod store;

pub use key::{InstanceKey, KeyError};
pub(crate) use store::certificates_of;
pub use store::{Certificates, Enrolled, IdentityError, Store};
