//! Values that are kept once and named by a number, for as long as the process runs.
//!
//! A state has no room for what few states need, and a packet's header none for an address: both hold the number of such a
//! value instead. Equal values have one number, so reloads add nothing; a number never comes to mean another value, so that
//! a packet that waits somewhere is right whenever it goes on. Reading takes no lock. There is room for [`LIMIT`]
//! different ones.

use std::{collections::HashMap, hash::Hash, sync::OnceLock};

use kern::lock::Leaf;

/// Values at most: a number fits into 16 bits.
pub(crate) const LIMIT: usize = 4096;

/// Values by number, and numbers by value.
#[derive(Debug)]
pub(crate) struct Interned<T> {
    places: Box<[OnceLock<T>]>,
    numbers: Leaf<HashMap<T, u32>>,
}

impl<T: Copy + Eq + Hash> Interned<T> {
    pub(crate) fn new() -> Interned<T> {
        Interned {
            places: (0..LIMIT).map(|_| OnceLock::new()).collect(),
            // Workers add to it: that must never allocate.
            numbers: Leaf::new(HashMap::with_capacity(LIMIT)),
        }
    }

    /// The number of a value, from 1; none if it is new and there is no room.
    pub(crate) fn number(&self, value: T) -> Option<u32> {
        self.numbers.with(|numbers| {
            if let Some(&number) = numbers.get(&value) {
                return Some(number);
            }
            let place = self.places.get(numbers.len())?;
            place.set(value).ok()?;
            let number = numbers.len() as u32 + 1;
            numbers.insert(value, number);
            Some(number)
        })
    }

    /// The value with this number.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        self.places.get((number as usize).checked_sub(1)?)?.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_one_number_and_a_number_stays_what_it_is() {
        let values = Interned::new();
        let numbers: Vec<_> = [7, 8, 7].map(|v| values.number(v).unwrap()).to_vec();
        assert_eq!(numbers, [1, 2, 1]);
        assert_eq!(
            (values.get(1), values.get(2), values.get(3), values.get(0)),
            (Some(&7), Some(&8), None, None)
        );
    }

    #[test]
    fn there_is_an_end_and_what_is_known_is_still_found() {
        let values = Interned::new();
        assert!((0..LIMIT).all(|v| values.number(v).is_some()));
        assert_eq!(values.number(LIMIT), None);
        assert_eq!(values.number(17), Some(18));
    }
}
