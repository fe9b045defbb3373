//! ALTQ: interface queues and their disciplines.
//!
//! An interface that `pf.conf` gives an `altq on` line sends through one [`IfQueue`]: one lock, one tree of classes,
//! one regulator, whatever the number of workers. Three audiences, as in OpenBSD's `ifq.h`:
//!
//! | who | uses |
//! |---|---|
//! | the stack, with packets to send | [`IfQueue::must_cut`], [`IfQueue::enqueue_batch`] |
//! | whoever drains the queue into the device | [`Turn`], [`IfQueue::next_burst`], [`Drain`] |
//! | configuration and reports | [`TreeSpec::build`], [`IfQueue::attach`], [`IfQueue::stats`], [`show`] |
//!
//! A discipline is one file behind one small trait, [`Discipline`]. Which class a packet waits in was decided by pf,
//! at the interface's output, and travels in the packet's header as a queue id; a packet without one, or with one
//! that this interface does not have, waits in the default class.
//!
//! Bytes are the frame's as given to the device: Ethernet header included, preamble and check sequence not. A
//! super-frame is charged as the segments it will be cut into.
//!
//! Sources: ALTQ (K. Cho, KAME), `sys/net/altq` of FreeBSD and NetBSD, pf.conf(5). Not here: the classification (pf),
//! the cutting of super-frames and the timer (router).

mod admission;
mod blue;
mod cbq;
mod charge;
mod check;
mod codel;
mod conf;
mod curve;
mod delay;
mod discipline;
mod ecn;
mod error;
mod fairq;
mod fifo;
mod flows;
mod hfsc;
mod ifq;
mod priq;
mod queue;
mod random;
mod red;
mod rio;
pub mod show;
mod tbr;
mod tournament;
mod valve;

pub use admission::{Excess, worst_delay};
pub use cbq::Cbq;
pub use charge::{Charge, Framing};
pub use codel::CodelConf;
pub use conf::{
    Bandwidth, ClassConf, CurveSpec, QueueFlags, QueueSpec, SchedulerKind, Tree, TreeConf, TreeSpec,
    default_tbrsize,
};
pub use curve::Curve;
pub use delay::Delay;
pub use discipline::{ClassId, Discipline, Engine, Entry, Refused, VICTIMS, Victims};
pub use error::TreeError;
pub use fairq::Fairq;
pub use fifo::Fifo;
pub use flows::FlowsConf;
pub use hfsc::{Curves, Hfsc};
pub use ifq::{Drain, IfQueue, IfqStats, Turn};
pub use priq::{PRIORITIES, Priq};
pub use queue::{ClassQueue, Counters, DropperConf, QueueConf, Tally};
pub use tbr::Regulator;
