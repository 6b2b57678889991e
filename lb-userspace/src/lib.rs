//! The daemon and the CLI of `lb`, as a library.
//!
//! [`config`] and [`api`] turn what people and programs want into [`model`] types; the [`controller`] owns them, asks
//! [`placement`] where everything stands, and brings the [`datapath`] there. [`state`] remembers it over restarts. [`health`] and [`neighbors`] tell it what is
//! well and what is where; [`announce`] tells the neighbours. [`journal`] tells what happens. [`cli`] talks to a running daemon through [`client`]. [`decap`] is
//! the other end of tunnels, on backends.

pub mod announce;
pub mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod controller;
pub mod daemon;
pub mod datapath;
pub mod decap;
pub mod doctor;
pub mod health;
mod heap;
pub mod ipvs;
pub mod journal;
pub mod metrics;
pub mod model;
mod names;
pub mod neighbors;
pub mod pem;
pub mod placement;
pub mod state;
mod stop;
pub mod suggestion;
mod supervisor;
pub mod view;
