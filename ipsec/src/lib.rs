//! IPsec.
pub mod transform;
