//! The system calls of `/dev/net/tun`: making the device, its queues, its offloads (linux/if_tun.h, tun(4)).

use super::TapConfig;
use crate::iface::{driver::Caps, vnet};
use libc::{c_int, c_ulong};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use std::{
    fs, io, mem,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

const TUN: &str = "/dev/net/tun";
/// USO of linux/if_tun.h, Linux 6.2.
const TUN_F_USO4: u32 = 0x20;
const TUN_F_USO6: u32 = 0x40;
const TUN_F_CSUM: u32 = 0x01;
const TUN_F_TSO4: u32 = 0x02;
const TUN_F_TSO6: u32 = 0x04;
/// The device outlives its descriptors.
const IFF_PERSIST: u32 = 0x0800;

const FLAGS: c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;

/// Why a TAP device could not be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// We may not.
    #[error("no permission to make TAP device \"{0}\": run as root or with CAP_NET_ADMIN")]
    Permission(String),
    /// The system has no TUN driver.
    #[error(
        "cannot make TAP device \"{0}\": {TUN} is not there (modprobe tun; in a container, pass the device in)"
    )]
    NoTun(String),
    /// Somebody else has it.
    #[error("TAP device \"{0}\" is in use by another program")]
    InUse(String),
    /// A device of that name is something else.
    #[error("a network device \"{0}\" is there already and is no multi-queue TAP device")]
    NotTap(String),
    /// Not a name for a network device.
    #[error(
        "\"{0}\" is no name for a network device: 1 to 15 characters, no space, no slash, no colon, no percent sign"
    )]
    BadName(String),
    /// More queues than a device can have.
    #[error("TAP device \"{0}\" cannot have {1} queues: 1 to 256")]
    Queues(String, usize),
    /// The MTU was refused.
    #[error("TAP device \"{0}\" does not take an MTU of {1}: {2}")]
    Mtu(String, u32, io::Error),
    /// Anything else.
    #[error("cannot make TAP device \"{0}\": {1}: {2}")]
    System(String, &'static str, io::Error),
}

/// A device that is open: a descriptor a queue.
pub(super) struct Opened {
    pub(super) queues: Vec<OwnedFd>,
    pub(super) caps: Caps,
}

/// Makes the device, or attaches to a persistent one that is there.
pub(super) fn open(config: &TapConfig) -> Result<Opened, OpenError> {
    let name = &config.device;
    if !is_name(name) {
        return Err(OpenError::BadName(name.clone()));
    }
    if config.queues == 0 || config.queues > 256 {
        return Err(OpenError::Queues(name.clone(), config.queues));
    }
    let mut queues = Vec::with_capacity(config.queues);
    let mut caps = Caps::default();
    for number in 0..config.queues {
        let fd = open_tun(name)?;
        if number == 0 {
            claim(&fd, name)?;
        } else {
            attach(&fd, name, 0).map_err(|e| failed(name, "attach a queue", e))?;
        }
        set_header_len(&fd).map_err(|e| failed(name, "set the header length", e))?;
        caps = set_offload(&fd, config.offload).map_err(|e| failed(name, "set offloads", e))?;
        queues.push(fd);
    }
    if let Some(mtu) = config.mtu {
        set_mtu(name, mtu).map_err(|e| OpenError::Mtu(name.clone(), mtu, e))?;
    }
    Ok(Opened { queues, caps })
}

/// What the kernel takes for a name (`dev_valid_name`), and no template.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && !matches!(name, "." | "..")
        && name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'))
}

fn failed(name: &str, what: &'static str, error: io::Error) -> OpenError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => OpenError::Permission(name.to_owned()),
        Some(libc::EBUSY) => OpenError::InUse(name.to_owned()),
        Some(libc::EINVAL) => OpenError::NotTap(name.to_owned()),
        _ => OpenError::System(name.to_owned(), what, error),
    }
}

fn open_tun(name: &str) -> Result<OwnedFd, OpenError> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(TUN, flags, Mode::empty()).map_err(|e| match e {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => OpenError::NoTun(name.to_owned()),
        Errno::PERM | Errno::ACCESS => OpenError::Permission(name.to_owned()),
        other => OpenError::System(name.to_owned(), "open /dev/net/tun", other.into()),
    })
}

/// Takes the first queue: of a new device, or of a persistent one that somebody made for us. Any other multi-queue device that is there
/// belongs to a running program, and the kernel would let us share it.
fn claim(fd: &OwnedFd, name: &str) -> Result<(), OpenError> {
    match attach(fd, name, libc::IFF_TUN_EXCL) {
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => match tun_flags(name) {
            None if fs::exists(format!("/sys/class/net/{name}")).unwrap_or(false) => {
                Err(OpenError::NotTap(name.to_owned()))
            }
            Some(flags) if flags & IFF_PERSIST != 0 => {
                attach(fd, name, 0).map_err(|e| failed(name, "attach", e))
            }
            _ => Err(OpenError::InUse(name.to_owned())),
        },
        other => other.map_err(|e| failed(name, "create", e)),
    }
}

fn tun_flags(name: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("/sys/class/net/{name}/tun_flags")).ok()?;
    u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: ifreq is plain old data: zeroes are a value of it.
    let mut ifr: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in ifr.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    ifr
}

fn check(answer: c_int) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn attach(fd: &OwnedFd, name: &str, extra: c_int) -> io::Result<()> {
    let mut ifr = request(name);
    ifr.ifr_ifru.ifru_flags = (FLAGS | extra) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF as _, &raw mut ifr) })
}

fn set_header_len(fd: &OwnedFd) -> io::Result<()> {
    let len = vnet::LEN as c_int;
    // SAFETY: TUNSETVNETHDRSZ reads one int, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &raw const len) })
}

/// Tells the kernel what it may give us; a kernel that does not know USO is asked again without.
fn set_offload(fd: &OwnedFd, offload: bool) -> io::Result<Caps> {
    if !offload {
        offload_bits(fd, 0)?;
        return Ok(Caps::default());
    }
    let tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    let all = offload_bits(fd, tcp | TUN_F_USO4 | TUN_F_USO6);
    if all.is_err() {
        offload_bits(fd, tcp)?;
    }
    Ok(Caps { checksum: true, tso: true, uso: all.is_ok() })
}

fn offload_bits(fd: &OwnedFd, bits: u32) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD as _, c_ulong::from(bits)) })
}

fn set_mtu(name: &str, mtu: u32) -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut ifr = request(name);
    ifr.ifr_ifru.ifru_mtu = c_int::try_from(mtu).map_err(|_| io::Error::from(Errno::INVAL))?;
    // SAFETY: SIOCSIFMTU reads one ifreq, which outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFMTU as _, &raw const ifr) })
}

/// Puts `new` in the place of the descriptor `old`, at once for all threads that use it.
pub(super) fn replace(old: BorrowedFd<'_>, new: &OwnedFd) -> io::Result<()> {
    // SAFETY: both descriptors are open; dup3 closes what `old` was and opens it again in one step, so its owner goes on owning an open
    // descriptor, and a call under way in another thread keeps the old file until it returns.
    check(unsafe { libc::dup3(new.as_raw_fd(), old.as_raw_fd(), libc::O_CLOEXEC) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_the_kernel_judges_them() {
        for good in ["gwa-lan", "tap0", "a", "fifteen-letters"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", "sixteen-letters!", "a b", "a/b", "a:1", "tap%d", "ä"] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn each_failure_is_one_line_that_names_the_device() {
        for errno in [libc::EPERM, libc::EBUSY, libc::EINVAL, libc::ENOMEM] {
            let text = failed("lan0", "create", io::Error::from_raw_os_error(errno)).to_string();
            assert!(text.contains("\"lan0\"") && !text.contains('\n'), "{text}");
        }
    }
}
