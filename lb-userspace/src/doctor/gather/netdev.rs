//! The `netdev` family of generic netlink, as far as XDP's features (linux/netdev.h).

use netlink_packet_generic::{GenlFamily, GenlHeader};
use rtnetlink::packet_core::{
    DecodeError, DefaultNla, Emitable, ErrorContext as _, Nla as _, NlasIterator, Parseable as _,
    ParseableParametrized, parse_u64,
};

/// `NETDEV_CMD_DEV_GET`.
const GET: u8 = 1;
/// `NETDEV_A_DEV_IFINDEX`.
const INDEX: u16 = 1;
/// `NETDEV_A_DEV_XDP_FEATURES`.
const XDP_FEATURES: u16 = 3;

/// What a device can do for XDP: the question has its number, the answer its features.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    attributes: Vec<DefaultNla>,
    /// `NETDEV_XDP_ACT_*`.
    pub(super) xdp_features: Option<u64>,
}

impl Device {
    /// Asks for an interface.
    pub(super) fn get(index: u32) -> Self {
        Self {
            attributes: vec![DefaultNla::new(INDEX, index.to_ne_bytes().to_vec())],
            xdp_features: None,
        }
    }
}

impl GenlFamily for Device {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn command(&self) -> u8 {
        GET
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Device {
    fn buffer_len(&self) -> usize {
        self.attributes.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attributes.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Device {
    fn parse_with_param(buffer: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        let mut device = Self {
            attributes: Vec::new(),
            xdp_features: None,
        };
        for attribute in NlasIterator::new(buffer) {
            let attribute = attribute.context("an attribute of a network device")?;
            let attribute = DefaultNla::parse(&attribute)?;
            if attribute.kind() == XDP_FEATURES {
                let mut value = vec![0; attribute.value_len()];
                attribute.emit_value(&mut value);
                device.xdp_features = Some(parse_u64(&value)?);
            }
            device.attributes.push(attribute);
        }
        Ok(device)
    }
}
