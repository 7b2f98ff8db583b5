//! Set-up, demonstration, tests and benchmarks of Evenkeel.
fn main() {}
