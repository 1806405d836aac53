//! Who calls, what they may do, and how much of it.
//!
//! A broker that authenticates keeps a copy of all valid tokens, grants and quotas, and the owners
//! of the registrations that are in use. A check therefore costs no round trip and holds no lock while it
//! waits. The copy is polled once a second, so that each change takes effect within 5 seconds on
//! every broker, and at once on the broker that made it.
//!
//! If the database has not confirmed the copy for 5 seconds, new calls are refused. Open streams go
//! on for 60 seconds.
//!
//! A broker that does not authenticate has no copy and checks nothing: everyone is an administrator.

mod administration;
mod bootstrap;
mod caller;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gate;
mod guard;
pub mod jwt;
mod owners;
mod quotas;
mod rate;
mod rights;
mod rules;
mod snapshot;
mod state;
mod token;
mod usage;

pub use administration::{NewToken, RotateToken};
pub use bootstrap::{BootstrapError, FIRST_ADMINISTRATOR, bootstrap};
pub use caller::{Caller, PeerIdentity};
pub use error::Error;
pub use gate::{Access, Unproven};
pub use guard::Guard;
pub use rules::{Rule, find_call, find_rule, rules};
pub use state::Patience;
pub use usage::{OpenStream, Pace};
