//! The shape that every format shares: a view over octets with named, typed fields at fixed offsets.
//!
//! `view!` makes the struct, `fields!` its accessors from a table that reads like the RFC's picture. Private to the crate: the macros
//! are a notation, not an interface.

use core::net::{Ipv4Addr, Ipv6Addr};

/// A value with a fixed number of octets in network order.
pub(crate) trait Field: Sized {
    /// Reads the value at `at`. Panics when the octets are not there: views check their length first.
    fn get(octets: &[u8], at: usize) -> Self;
    /// Writes the value at `at`.
    fn put(self, octets: &mut [u8], at: usize);
}

macro_rules! integer_field {
    ($($t:ty: $n:literal),*) => {$(
        impl Field for $t {
            #[inline]
            fn get(octets: &[u8], at: usize) -> Self {
                let mut raw = [0; $n];
                raw.copy_from_slice(&octets[at..at + $n]);
                <$t>::from_be_bytes(raw)
            }
            #[inline]
            fn put(self, octets: &mut [u8], at: usize) {
                octets[at..at + $n].copy_from_slice(&self.to_be_bytes());
            }
        }
    )*};
}
integer_field!(u8: 1, u16: 2, u32: 4, u64: 8);

macro_rules! wrapped_field {
    ($($t:ty: $n:literal, $octets:expr, $make:expr);* $(;)?) => {$(
        impl Field for $t {
            #[inline]
            fn get(octets: &[u8], at: usize) -> Self {
                let mut raw = [0; $n];
                raw.copy_from_slice(&octets[at..at + $n]);
                $make(raw)
            }
            #[inline]
            fn put(self, octets: &mut [u8], at: usize) {
                octets[at..at + $n].copy_from_slice(&$octets(self));
            }
        }
    )*};
}
wrapped_field! {
    Ipv4Addr: 4, |a: Ipv4Addr| a.octets(), Ipv4Addr::from_octets;
    Ipv6Addr: 16, |a: Ipv6Addr| a.octets(), Ipv6Addr::from_octets;
    crate::Mac: 6, |m: crate::Mac| m.0, crate::Mac;
    crate::IpProto: 1, |p: crate::IpProto| [p.0], |raw: [u8; 1]| crate::IpProto(raw[0]);
    crate::EtherType: 2, |t: crate::EtherType| t.0.to_be_bytes(), |raw| crate::EtherType(u16::from_be_bytes(raw));
}

/// Reads a field of inferred type.
#[inline]
pub(crate) fn get<F: Field>(octets: &[u8], at: usize) -> F {
    F::get(octets, at)
}

/// Writes a field.
#[inline]
pub(crate) fn put<F: Field>(octets: &mut [u8], at: usize, value: F) {
    value.put(octets, at);
}

/// Declares the view `$name<T>`; the file adds `fn check_len(&self) -> Result<(), Malformed>`.
macro_rules! view {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name<T: AsRef<[u8]>> {
            buffer: T,
        }

        impl<T: AsRef<[u8]>> $name<T> {
            /// Wraps octets without looking at them. Accessors panic when the octets are too few.
            pub const fn new_unchecked(buffer: T) -> Self {
                Self { buffer }
            }

            /// Wraps octets and makes sure that no accessor can panic.
            pub fn new_checked(buffer: T) -> Result<Self, crate::Malformed> {
                let view = Self { buffer };
                view.check_len()?;
                Ok(view)
            }

            /// Gives the octets back.
            pub fn into_inner(self) -> T {
                self.buffer
            }

            /// All the octets of the view.
            pub fn octets(&self) -> &[u8] {
                self.buffer.as_ref()
            }
        }

        impl<T: AsRef<[u8]> + AsMut<[u8]>> $name<T> {
            /// All the octets of the view, to change.
            pub fn octets_mut(&mut self) -> &mut [u8] {
                self.buffer.as_mut()
            }
        }
    };
}

/// Accessors of a view: `/// doc; type getter, setter @ offset;` a line.
macro_rules! fields {
    ($name:ident: $($(#[$doc:meta])* $t:ty, $get:ident, $set:ident @ $at:expr;)*) => {
        impl<T: AsRef<[u8]>> $name<T> {
            $(
                $(#[$doc])*
                #[inline]
                pub fn $get(&self) -> $t {
                    crate::view::get(self.buffer.as_ref(), $at)
                }
            )*
        }

        impl<T: AsRef<[u8]> + AsMut<[u8]>> $name<T> {
            $(
                #[doc = concat!("Sets [`Self::", stringify!($get), "`].")]
                #[inline]
                pub fn $set(&mut self, value: $t) {
                    crate::view::put(self.buffer.as_mut(), $at, value);
                }
            )*
        }
    };
}
