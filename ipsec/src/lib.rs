//! IPsec.
pub mod esp;
pub mod order;
pub mod replay;
pub mod sa;
pub mod seq;
pub mod transform;
