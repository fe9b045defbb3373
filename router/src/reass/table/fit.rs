//! Does a fragment fit its datagram, and where does it go?

use super::{NIL, Table};
use crate::reass::piece::Piece;
use kern::Why;

/// Where a fragment goes in its datagram.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Behind this node (or at the front).
    Behind(u32),
    Duplicate,
    Overlap,
}

impl Table {
    /// Whether a fragment fits its datagram, and where.
    pub(super) fn judge(&self, at: u32, piece: &Piece) -> Result<u32, Why> {
        let d = &self.datagrams[at as usize];
        if d.dead {
            return Err(Why::FragOverlap);
        }
        match self.place(d.first, piece) {
            Place::Duplicate => Err(Why::FragDuplicate),
            Place::Overlap => Err(Why::FragOverlap),
            Place::Behind(_) if d.total.is_some_and(|total| !piece.more || piece.end() > total) => {
                Err(Why::FragMalformed)
            }
            Place::Behind(behind) => {
                let last = self.last(d.first);
                let beyond = !piece.more && last.is_some_and(|end| end > piece.end());
                if beyond { Err(Why::FragMalformed) } else { Ok(behind) }
            }
        }
    }

    fn place(&self, first: u32, piece: &Piece) -> Place {
        let (mut behind, mut at) = (NIL, first);
        while let Some(node) = self.nodes.get(at as usize) {
            if node.offset >= piece.end() {
                break;
            }
            if node.offset == piece.offset && node.len == piece.len {
                return Place::Duplicate;
            }
            if node.offset + node.len > piece.offset {
                return Place::Overlap;
            }
            (behind, at) = (at, node.next);
        }
        Place::Behind(behind)
    }

    /// The end of the last fragment.
    fn last(&self, first: u32) -> Option<u32> {
        let (mut end, mut at) = (None, first);
        while let Some(node) = self.nodes.get(at as usize) {
            (end, at) = (Some(node.offset + node.len), node.next);
        }
        end
    }
}
