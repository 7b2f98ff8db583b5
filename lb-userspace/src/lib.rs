//! Evenkeel's controller as a library.
//!
//! Layers, from the bottom: [`model`] (data); [`config`], [`health`], [`balance`], [`stats`]
//! (pure rules: no task, no clock, no kernel); [`dataplane`], [`neighbours`], [`journal`]
//! (input and output);
//! [`controller`], [`admin`] (tasks); [`cli`]. Imports point down only.

pub mod admin;
pub mod audit;
pub mod balance;
pub mod causes;
pub mod change;
pub mod cli;
pub mod config;
pub mod controller;
pub mod dataplane;
pub mod doctor;
pub mod health;
pub mod journal;
pub mod kept;
pub mod model;
pub mod neighbours;
pub mod notify;
pub mod stats;
pub mod trust;
