//! altq
