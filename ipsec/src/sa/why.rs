//! Why a packet of an SA ended, by the SA's protocol.
//!
//! ESP, AH and IPComp go one way ([`crate::esp`]) and fail for the same causes, which the code there calls by ESP's names. An
//! operator who sees `esp.auth` looks for an ESP peer: so each protocol counts its own.

use super::Protocol;
use kern::Why;

impl Protocol {
    /// What stands for this protocol in the place of a reason of ESP's; any other reason stays what it is.
    ///
    /// IPComp has no ICV, no window and no end of its numbers, so it has no reasons for them.
    #[cold]
    pub const fn why(self, esp: Why) -> Why {
        match self {
            Protocol::Esp => esp,
            Protocol::Ah => ah(esp),
            Protocol::Ipcomp => ipcomp(esp),
        }
    }
}

const fn ah(esp: Why) -> Why {
    match esp {
        Why::EspMalformed => Why::AhMalformed,
        Why::EspNoSa => Why::AhNoSa,
        Why::EspReplay => Why::AhReplay,
        Why::EspAuth => Why::AhAuth,
        Why::EspPadding => Why::AhInner,
        Why::EspPolicy => Why::AhPolicy,
        Why::EspSequence => Why::AhSequence,
        Why::EspProtocol => Why::AhProtocol,
        Why::EspLifetime => Why::AhLifetime,
        Why::EspTooBig => Why::AhTooBig,
        Why::EspEcn => Why::AhEcn,
        Why::EspUnfinished => Why::AhUnfinished,
        Why::EspEngine => Why::AhEngine,
        Why::EspTransport => Why::AhTransport,
        other => other,
    }
}

const fn ipcomp(esp: Why) -> Why {
    match esp {
        Why::EspMalformed => Why::IpcompMalformed,
        Why::EspNoSa => Why::IpcompNoSa,
        Why::EspPadding => Why::IpcompInner,
        Why::EspPolicy => Why::IpcompPolicy,
        Why::EspProtocol => Why::IpcompProtocol,
        Why::EspLifetime => Why::IpcompLifetime,
        Why::EspTooBig => Why::IpcompTooBig,
        Why::EspEcn => Why::IpcompEcn,
        Why::EspUnfinished => Why::IpcompUnfinished,
        Why::EspTransport => Why::IpcompTransport,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of ESP alone: a dummy is ESP's invention; the others need an ICV or numbers.
    const NOT_AH: [Why; 1] = [Why::EspDummy];
    const NOT_IPCOMP: [Why; 5] =
        [Why::EspDummy, Why::EspReplay, Why::EspAuth, Why::EspSequence, Why::EspEngine];

    #[test]
    fn each_reason_of_esp_has_a_counterpart_of_its_own_in_the_other_protocols() {
        for (protocol, prefix, none) in
            [(Protocol::Ah, "ah.", &NOT_AH[..]), (Protocol::Ipcomp, "ipcomp.", &NOT_IPCOMP[..])]
        {
            let esp = Why::ALL.iter().filter(|why| why.path().starts_with("esp.") && !none.contains(why));
            let mut own: Vec<Why> = esp.map(|why| protocol.why(*why)).collect();
            assert!(own.iter().all(|why| why.path().starts_with(prefix)), "{own:?}");
            let all = own.len();
            own.sort();
            own.dedup();
            assert_eq!(own.len(), all, "two reasons became one");
            assert_eq!(protocol.why(Why::SpClear), Why::SpClear);
        }
        assert!(Why::ALL.iter().all(|why| Protocol::Esp.why(*why) == *why));
    }
}
