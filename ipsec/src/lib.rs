//! IPsec.
pub mod order;
pub mod replay;
pub mod seq;
pub mod transform;
