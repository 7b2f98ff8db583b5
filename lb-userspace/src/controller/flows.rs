//! Shows remembered flows. The kernel's tables are read beside the controller's task: they may hold
//! a quarter of a million entries.

use std::sync::Arc;

use ipnet::IpNet;
use lb_common::{
    flow::Flow,
    layout::{FlowEntry, entry},
};
use tokio::task::spawn_blocking;

use super::state::State;
use crate::{
    admin::{
        proto::flows::{self as proto, Query},
        server::change::{Answer, Answerer, Because, Refused},
    },
    balance::{
        image::{self, Image},
        sweep::{Reasons, Table},
    },
    dataplane::flows::{Flows, Walk},
    explain::Names,
};

/// How many entries are looked at for one answer: as many as the tables hold by default.
const MOST_READ: usize = 1 << 19;

/// Everything that an answer is made from.
struct Look {
    flows: Arc<Flows>,
    image: Image,
    names: Names,
    wanted: Wanted,
}

/// Which flows are wanted, by numbers.
struct Wanted {
    service: Option<u16>,
    endpoint: Option<u16>,
    client: Option<IpNet>,
    count: usize,
}

impl State {
    /// Answers with remembered flows, later and beside the task.
    pub(super) fn show_flows(&self, query: &Query, answer: Answerer) {
        match self.look(query) {
            Ok(Some(look)) => {
                spawn_blocking(move || {
                    let said = look.read().map(|flows| Answer::Flows(Box::new(flows)));
                    // Who asked may have gone.
                    let _ = answer.send(said);
                });
            }
            Ok(None) => {
                let none = proto::Flows {
                    flows: Vec::new(),
                    looked_at: 0,
                    complete: true,
                };
                let _ = answer.send(Ok(Answer::Flows(Box::new(none))));
            }
            Err(refused) => {
                let _ = answer.send(Err(refused));
            }
        }
    }

    /// What is to be looked at; `None` where packets follow nothing yet.
    fn look(&self, query: &Query) -> Result<Option<Look>, Refused> {
        let invalid = |error| Refused::new(Because::Invalid, error);
        let client = query.client.as_deref().map(proto::prefix).transpose();
        let mut wanted = Wanted {
            service: None,
            endpoint: None,
            client: client.map_err(invalid)?,
            count: query.count.min(proto::MOST),
        };
        if let Some(name) = &query.service {
            let service = self.named_service(name)?;
            wanted.service = self.numbers.service(&service.key);
            if let Some(backend) = &query.backend {
                let (service, backend) = self.named(name, backend)?;
                wanted.endpoint = self.numbers.endpoint(&service.key, backend.address);
            }
        } else if query.backend.is_some() {
            let error = "a backend is named by its service, too".to_owned();
            return Err(invalid(error));
        }
        let Some(image) = self.image.clone() else {
            return Ok(None);
        };
        Ok(Some(Look {
            flows: self.kernel.shared_flows(),
            image,
            names: self.names(),
            wanted,
        }))
    }
}

impl Look {
    fn read(&self) -> Result<proto::Flows, Refused> {
        let mut found = proto::Flows {
            flows: Vec::new(),
            looked_at: 0,
            complete: true,
        };
        let reasons = Reasons::of(&self.image);
        for table in [Table::Established, Table::Fresh] {
            let mut at = Some(Walk::Start);
            while let Some(from) = at {
                if found.flows.len() >= self.wanted.count || found.looked_at >= MOST_READ {
                    found.complete = false;
                    return Ok(found);
                }
                let (entries, next) = self.flows.read(table, from).map_err(|e| {
                    let error = format!("cannot read the remembered flows: {e}");
                    Refused::new(Because::Failed, error)
                })?;
                let now = Flows::now();
                at = next;
                for (flow, entry) in &entries {
                    found.looked_at += 1;
                    if self.wants(flow, entry) {
                        if found.flows.len() >= self.wanted.count {
                            found.complete = false;
                            return Ok(found);
                        }
                        found
                            .flows
                            .push(self.names.flow(&reasons, (table, flow, entry), now));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Whether a flow is to be shown. Of the two entries that a translated one has, that of the
    /// client's packets is.
    fn wants(&self, flow: &Flow, found: &FlowEntry) -> bool {
        let Wanted {
            service,
            endpoint,
            client,
            ..
        } = &self.wanted;
        found.flags & entry::REPLY == 0
            && service.is_none_or(|number| number == found.service)
            && endpoint.is_none_or(|number| number == found.endpoint)
            && client.is_none_or(|prefix| prefix.contains(&image::ip(flow.family, flow.source)))
    }
}
