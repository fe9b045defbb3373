//! A chain: several buffers that together are *one* datagram.
//!
//! Exists in fragmentation only: reassembly collects pieces in a chain and joins them. No other function takes a
//! chain, so nobody has to ask whether a header is contiguous.

use super::{Class, Ledger, Mbuf, Owner, Pool, Why};
use arrayvec::ArrayVec;

/// Pieces of one datagram, in order. Each piece is a packet of its own in the ledger until it is joined.
#[derive(Default)]
pub struct Chain {
    pieces: ArrayVec<Mbuf, { Chain::PIECES }>,
    len: usize,
}

impl Chain {
    /// Pieces a chain can have: 65,535 bytes over links of 576.
    pub const PIECES: usize = 128;

    /// An empty chain.
    pub const fn new() -> Chain {
        Chain { pieces: ArrayVec::new_const(), len: 0 }
    }

    /// Adds a piece at the end; a full chain gives it back.
    pub fn push(&mut self, m: Mbuf) -> Result<(), Mbuf> {
        let len = m.len();
        self.pieces.try_push(m).map_err(arrayvec::CapacityError::element)?;
        self.len += len;
        Ok(())
    }

    /// Bytes in all pieces.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no pieces.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The pieces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(Mbuf::data)
    }

    /// Takes the pieces out, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Mbuf> + '_ {
        self.len = 0;
        self.pieces.drain(..)
    }

    /// Joins the pieces into one buffer, a cluster if they fit and a jumbo if not.
    ///
    /// The joined packet has the first piece's header fields. The pieces end as merged, the whole begins as split
    /// from them. Without a buffer (or beyond a jumbo) the pieces stay, and the answer is the reason.
    pub fn coalesce(&mut self, pool: &Pool, ledger: &Ledger) -> Result<Mbuf, Why> {
        let room = self.len + super::HEADROOM + 64;
        let class = if room <= Class::Cluster.capacity() { Class::Cluster } else { Class::Jumbo };
        let Some(first) = self.pieces.first().filter(|_| room <= Class::Jumbo.capacity()) else {
            return Err(Why::FragTooBig);
        };
        let mut whole = pool.alloc(class, Owner::Worker).ok_or(Why::NoBuffer)?;
        ledger.split(&mut whole);
        whole.hdr_mut().inherit(first.hdr());
        for piece in self.drain() {
            if let Ok(room) = whole.append(piece.len()) {
                room.copy_from_slice(piece.data());
            }
            ledger.merge(piece);
        }
        Ok(whole)
    }
}
