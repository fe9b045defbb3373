//! Does a fragment fit its datagram, and where does it go?

use super::{NIL, Overlap, Table};
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

/// A fragment that fits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fit {
    /// The node it goes behind.
    pub behind: u32,
    /// The fragment, without what is there already.
    pub piece: Piece,
    /// Octets that are there already at its end.
    pub back: usize,
}

impl Table {
    /// Whether a fragment fits its datagram, and where.
    pub(super) fn judge(&self, at: u32, piece: &Piece) -> Result<Fit, Why> {
        let d = &self.datagrams[at as usize];
        if d.dead {
            return Err(Why::FragOverlap);
        }
        let trims = self.overlap == Overlap::Trim && piece.key.src.is_ipv4();
        let beyond = |piece: &Piece| d.total.is_some_and(|total| !piece.more || piece.end() > total);
        match self.place(d.first, piece) {
            Place::Duplicate => Err(Why::FragDuplicate),
            Place::Overlap if trims => {
                let end = piece.end();
                let beside = d.total.is_some_and(|total| if piece.more { end > total } else { end != total });
                let before = !piece.more && self.last(d.first).is_some_and(|last| last > end);
                if beside || before { Err(Why::FragMalformed) } else { self.trimmed(d.first, *piece) }
            }
            Place::Overlap => Err(Why::FragOverlap),
            Place::Behind(_) if beyond(piece) => Err(Why::FragMalformed),
            Place::Behind(behind) => {
                let last = self.last(d.first);
                let beyond = !piece.more && last.is_some_and(|end| end > piece.end());
                if beyond { Err(Why::FragMalformed) } else { Ok(Fit { behind, piece: *piece, back: 0 }) }
            }
        }
    }

    /// The part of a fragment in front of which, and behind which, others are already. What lies beyond the next fragment
    /// is lost: its sender has to send the datagram again.
    fn trimmed(&self, first: u32, mut piece: Piece) -> Result<Fit, Why> {
        let (mut behind, mut at) = (NIL, first);
        let mut back = 0;
        while let Some(node) = self.nodes.get(at as usize) {
            if node.offset >= piece.end() {
                break;
            }
            if node.offset > piece.offset {
                back = piece.end() - node.offset;
                break;
            }
            let front = (node.offset + node.len).saturating_sub(piece.offset);
            if front >= piece.len {
                return Err(Why::FragDuplicate);
            }
            piece.offset += front;
            piece.len -= front;
            piece.headers += front as u16;
            (behind, at) = (at, node.next);
        }
        piece.len -= back;
        // What is trimmed at its end is no longer the last of its datagram.
        piece.more |= back > 0;
        if piece.more && !piece.len.is_multiple_of(8) {
            return Err(Why::FragMalformed);
        }
        Ok(Fit { behind, piece, back: back as usize })
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
