//! What device and driver can do, by generic netlink.

use std::{collections::BTreeSet, pin::pin};

use ethtool::{EthtoolAttr, EthtoolChannelAttr, EthtoolFeatureAttr, EthtoolHandle, EthtoolMessage};
use futures_util::{Stream, StreamExt as _};
use netlink_packet_generic::GenlMessage;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use tokio::task::AbortHandle;

use super::{super::facts::QueueKind, netdev::Device};

/// Receive queues.
#[derive(Clone, Copy, Debug)]
pub(super) struct Channels {
    pub(super) now: u32,
    pub(super) max: u32,
    pub(super) kind: QueueKind,
}

/// The socket to ask by; nothing is told where it cannot be had.
pub(super) struct Nics(Option<(EthtoolHandle, AbortHandle)>);

impl Drop for Nics {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.0 {
            task.abort();
        }
    }
}

impl Nics {
    pub(super) fn connect() -> Self {
        match ethtool::new_connection() {
            Ok((connection, handle, _)) => {
                Self(Some((handle, tokio::spawn(connection).abort_handle())))
            }
            Err(e) => {
                log::debug!("no generic netlink: {e}");
                Self(None)
            }
        }
    }

    /// The offloads that are on, by their names; `None` where the kernel does not say.
    pub(super) async fn offloads(&mut self, name: &str) -> Option<BTreeSet<String>> {
        let (handle, _) = self.0.as_mut()?;
        let answers = handle.feature().get(Some(name)).execute().await.ok()?;
        first(answers).await?.find_map(|attribute| match attribute {
            EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) => {
                Some(bits.into_iter().map(|bit| bit.name).collect())
            }
            _ => None,
        })
    }

    /// How many queues packets come in by, and may; `None` where the driver does not say.
    pub(super) async fn channels(&mut self, name: &str) -> Option<Channels> {
        let (handle, _) = self.0.as_mut()?;
        let answers = handle.channel().get(Some(name)).execute().await.ok()?;
        let mut channels = Channels {
            now: 0,
            max: 0,
            kind: QueueKind::Rx,
        };
        for attribute in first(answers).await? {
            if let EthtoolAttr::Channel(EthtoolChannelAttr::CombinedMax(1..)) = attribute {
                channels.kind = QueueKind::Combined;
            }
            match attribute {
                EthtoolAttr::Channel(
                    EthtoolChannelAttr::RxCount(number) | EthtoolChannelAttr::CombinedCount(number),
                ) => channels.now += number,
                EthtoolAttr::Channel(
                    EthtoolChannelAttr::RxMax(number) | EthtoolChannelAttr::CombinedMax(number),
                ) => channels.max += number,
                _ => {}
            }
        }
        (channels.now > 0).then_some(channels)
    }

    /// What the driver can do for XDP; `None` where the kernel does not say (before 6.3).
    pub(super) async fn xdp_features(&mut self, index: u32) -> Option<u64> {
        let (handle, _) = self.0.as_mut()?;
        let mut message = NetlinkMessage::from(GenlMessage::from_payload(Device::get(index)));
        message.header.flags = NLM_F_REQUEST;
        let answers = handle.handle.request(message).await.ok()?;
        let mut answers = pin!(answers);
        match answers.next().await?.ok()?.payload {
            NetlinkPayload::InnerMessage(message) => message.payload.xdp_features,
            _ => None,
        }
    }
}

/// The attributes of the first answer, unless it is a refusal.
async fn first<E>(
    answers: impl Stream<Item = Result<GenlMessage<EthtoolMessage>, E>>,
) -> Option<impl Iterator<Item = EthtoolAttr>> {
    let mut answers = pin!(answers);
    Some(answers.next().await?.ok()?.payload.nlas.into_iter())
}
