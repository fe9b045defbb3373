//! Congestion notification across a tunnel (RFC 6040).
//!
//! In (4.1, normal mode): the outer field is a copy of the inner one. Out (4.2):
//!
//! ```text
//!                 arriving outer
//!   inner     Not-ECT   ECT(0)    ECT(1)    CE
//!   Not-ECT   Not-ECT   Not-ECT   Not-ECT   drop
//!   ECT(0)    ECT(0)    ECT(0)    ECT(1)    CE
//!   ECT(1)    ECT(1)    ECT(1)    ECT(1)    CE
//!   CE        CE        CE        CE        CE
//! ```

/// Both bits of the field.
pub(super) const MASK: u8 = 0b11;

const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// The inner field after decapsulation; `None`: drop.
#[inline(always)]
pub(super) const fn decapsulated(inner: u8, outer: u8) -> Option<u8> {
    match (inner & MASK, outer & MASK) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (CE, _) | (_, CE) => Some(CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        (inner, _) => Some(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_comes_out_as_in_figure_4_of_rfc_6040() {
        let outer = [NOT_ECT, ECT_0, ECT_1, CE];
        let table = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, row) in table {
            for (outer, expected) in outer.into_iter().zip(row) {
                assert_eq!(decapsulated(inner | 0xb8, outer | 0x40), expected, "inner {inner} outer {outer}");
            }
        }
    }
}
