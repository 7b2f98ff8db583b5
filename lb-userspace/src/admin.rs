//! The controller's answers to its command line: HTTP and JSON on a Unix socket.

pub mod client;
pub mod proto;
pub mod server;
