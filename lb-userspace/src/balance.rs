//! From configuration and health to the tables that the kernel forwards by. Pure: the same input
//! gives the same tables on every node.

mod cuckoo;
pub mod image;
pub mod maglev;
pub mod numbers;
pub mod overlay;
pub mod plan;
pub mod size;
pub mod sweep;
pub mod transition;
