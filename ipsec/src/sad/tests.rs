//! Two ways to find an inbound SA, which must agree.

use super::*;
use crate::{
    esp::tests::{config, material},
    sa::Setup,
    transform::{Auth, Suite},
};
use kern::{testing::Chance, time::Instant};
use std::net::{Ipv4Addr, Ipv6Addr};

fn sa(index: u32, protocol: Protocol, dst: IpAddr, spi: u32) -> Arc<Sa> {
    let suite = if protocol == Protocol::Ah { Suite::Ah(Auth::HmacSha256) } else { Suite::Aes128Gcm16 };
    let src = if dst.is_ipv4() { Ipv4Addr::new(10, 0, 0, 1).into() } else { Ipv6Addr::LOCALHOST.into() };
    let config = SaConfig { spi: Spi(spi), protocol, ..config([src, dst], suite) };
    Arc::new(Sa::new(SaIndex(index), config, material(suite), &Setup::new(Instant::ZERO)).unwrap())
}

#[test]
fn esp_over_ipv4_is_found_by_its_octets_as_by_its_parts() {
    let dst = |n: u64| match n {
        0..4 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, n as u8)),
        4 => Ipv4Addr::UNSPECIFIED.into(),
        _ => IpAddr::V6(Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(n))),
    };
    let seed = 0x2026_1130_5ad0_0001;
    let mut random = Chance::new(seed);
    for _ in 0..200 {
        let mut sas: Vec<Arc<Sa>> = vec![];
        for index in 0..random.below(24) as u32 {
            let protocol = if random.below(4) == 0 { Protocol::Ah } else { Protocol::Esp };
            let (dst, spi) = (dst(random.below(7)), 0x100 + random.below(6) as u32);
            let same = |sa: &Arc<Sa>| {
                (sa.config().protocol, sa.config().dst, sa.config().spi) == (protocol, dst, Spi(spi))
            };
            if !sas.iter().any(same) {
                sas.push(sa(index, protocol, dst, spi));
            }
        }
        let sad = Sad::new(sas);
        for (n, spi) in (0..5).flat_map(|n| (0x100..0x107).map(move |spi| (n, Spi(spi)))) {
            let IpAddr::V4(v4) = dst(n) else { unreachable!() };
            let by_parts = sad.inbound(Protocol::Esp, spi, v4.into()).map(|sa| sa.index());
            assert_eq!(sad.inbound_esp4(v4.octets(), spi), by_parts, "{v4} {spi:?} seed {seed:#x}");
        }
    }
    assert_eq!(Sad::default().inbound_esp4([0; 4], Spi(0)), None);
}
