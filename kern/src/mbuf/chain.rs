//! A chain: several buffers that together are *one* datagram.
//!
//! Exists in fragmentation only: reassembly collects pieces in a chain and joins them. No other function takes a
//! chain, so nobody has to ask whether a header is contiguous.

use super::{Class, Ledger, Mbuf, Owner, Pool, Why};

/// Pieces of one datagram, in order. Each piece is a packet of its own in the ledger until it is joined.
#[derive(Default)]
pub struct Chain {
    pieces: Vec<Mbuf>,
    len: usize,
}

impl Chain {
    /// An empty chain.
    pub const fn new() -> Chain {
        Chain { pieces: Vec::new(), len: 0 }
    }

    /// Adds a piece at the end.
    pub fn push(&mut self, m: Mbuf) {
        self.len += m.len();
        self.pieces.push(m);
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

    /// Takes the pieces out.
    pub fn into_pieces(self) -> Vec<Mbuf> {
        self.pieces
    }

    /// Joins the pieces into one buffer, a cluster if they fit and a jumbo if not.
    ///
    /// The joined packet has the first piece's header fields. The pieces end as merged, the whole begins as split
    /// from them. Without a buffer (or beyond a jumbo) the chain comes back with the reason.
    pub fn coalesce(self, pool: &Pool, ledger: &Ledger) -> Result<Mbuf, (Chain, Why)> {
        let class = if self.len + super::HEADROOM + 64 <= Class::Cluster.capacity() {
            Class::Cluster
        } else {
            Class::Jumbo
        };
        if self.pieces.is_empty() || self.len + super::HEADROOM + 64 > Class::Jumbo.capacity() {
            return Err((self, Why::FragTooBig));
        }
        let Some(mut whole) = pool.alloc(class, Owner::Worker) else {
            return Err((self, Why::NoBuffer));
        };
        ledger.split(&mut whole);
        whole.hdr_mut().inherit(self.pieces[0].hdr());
        for piece in self.pieces {
            if let Ok(room) = whole.append(piece.len()) {
                room.copy_from_slice(piece.data());
            }
            ledger.merge(piece);
        }
        Ok(whole)
    }
}
