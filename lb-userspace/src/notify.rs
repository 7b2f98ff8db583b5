//! Who is told of what is wrong, and that it is over.
//!
//! An alert is a state, not a message: what is wrong is derived anew from each status
//! ([`mod@derive`]), kept with its beginning and what it is hidden under ([`ledger`]), and compared
//! with what each receiver was told last ([`outbox`]). So nothing is lost where something was
//! missed, and nothing is told twice. What a receiver has yet to be sent lies on disk (`spool`),
//! in order, until it was taken.

pub mod alert;
pub mod api;
pub mod derive;
pub mod ledger;
pub mod outbox;
mod payload;
mod sender;
mod spool;

mod driver;

pub use self::driver::{Handle, Notifier, Overview, Signs};
