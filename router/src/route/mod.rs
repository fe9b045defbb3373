//! Routes: the table the control thread keeps ([`Rib`]) and the one the packet path reads ([`Fib`]).

pub mod bench;
pub mod fib;
pub mod fib4;
pub mod fib6;
pub mod hop;
pub mod rib;

pub use fib::Fib;
pub use hop::{GroupId, Hops, IfIndex, NextHop, NextHopId};
pub use rib::{Rib, Route, Source};

#[cfg(test)]
mod tests;
