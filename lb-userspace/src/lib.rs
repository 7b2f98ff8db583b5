//! Evenkeel's controller as a library.
//!
//! Layers, from the bottom: [`model`] (data); [`config`], [`health`], [`balance`], [`stats`]
//! (pure rules: no task, no clock, no kernel); [`dataplane`], [`neighbours`], [`journal`],
//! [`supervisor`] (input and output);
//! [`controller`], [`admin`] (tasks); [`cli`]. Imports point down only.

mod addresses;
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
pub mod drill;
pub mod explain;
pub mod health;
pub mod history;
pub mod incident;
pub mod journal;
pub mod kept;
pub mod loadtest;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod neighbours;
pub mod notify;
pub mod privileges;
pub mod report;
pub mod sandbox;
pub mod secret;
mod sqlite;
pub mod stats;
pub mod supervisor;
pub mod trust;
pub mod web;
