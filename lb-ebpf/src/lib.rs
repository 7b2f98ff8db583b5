//! Empty; lets `lb-userspace` name this crate as a build dependency.
#![no_std]
