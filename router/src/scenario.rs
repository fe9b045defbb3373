//! The two gateways of `configs/`, a LAN behind each, an ESP tunnel between them: their files, in the program.

/// A gateway's files, as they stand in `configs/`.
pub const GATEWAYS: [(&str, [&str; 3]); 2] = [
    (
        "gw-a",
        [
            include_str!("../../configs/gateway-a/softnet.toml"),
            include_str!("../../configs/gateway-a/pf.conf"),
            include_str!("../../configs/gateway-a/ipsec.conf"),
        ],
    ),
    (
        "gw-b",
        [
            include_str!("../../configs/gateway-b/softnet.toml"),
            include_str!("../../configs/gateway-b/pf.conf"),
            include_str!("../../configs/gateway-b/ipsec.conf"),
        ],
    ),
];
