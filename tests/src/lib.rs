//! The test bed: network namespaces, real servers, real clients and the built `evenkeel`.
//!
//! The integration tests, the end-to-end benchmarks and `cargo xtask demo` stand on it. It needs
//! root and a few tools, which `cargo xtask setup` installs; where one is missing it fails and
//! says so, and never skips. It needs no BPF toolchain and knows nothing of the controller but
//! its command line, so that what is tested is what is shipped.
//!
//! [`topology::Topology`] is the network. Everything that runs in it borrows it: [`server`],
//! [`daemon`], [`traffic`]. So the compiler sees to it that processes end before the network goes
//! away. Nothing outlives its owner, not even one that was killed: processes die with the thread
//! that started them, and what a killed run left in the kernel is removed by the next.

pub mod browser;
pub mod clock;
pub mod control_cost;
pub mod daemon;
pub mod decap;
pub mod end_to_end;
pub mod machine;
pub mod netns;
pub mod packet_cost;
pub mod process;
pub mod prometheus;
pub mod receivers;
pub mod rehearsal;
pub mod run_dir;
pub mod server;
pub mod tools;
pub mod topology;
pub mod traffic;
pub mod wait;
pub mod xdp_pass;
