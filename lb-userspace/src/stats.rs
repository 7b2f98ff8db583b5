//! What the counters say: rates, shares, and whether the load is even.
//!
//! Pure code: time comes in as an argument, as the time since any fixed moment (a `Duration`), and
//! nothing here reads a counter itself.
//!
//! - [`rate`] turns growing counters into increases, rates and observed shares.
//! - [`evenness`] judges increases of new flows against the shares of the live table.
//! - [`clients`] says who opens the connections, by samples.
//! - [`latency`] says how long handshakes and responses take, as the data plane measured them.
//! - [`flood`] tells a SYN flood from a busy hour.
//! - [`cusum`] and [`overdispersion`] are what that judgement is made of.

pub mod clients;
pub mod cusum;
pub mod evenness;
pub mod flood;
pub mod heat;
pub mod latency;
pub mod overdispersion;
pub mod rate;
