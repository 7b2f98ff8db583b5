//! Explains packets, beside the controller's task: a program is loaded for that, and all tables are
//! read back.

use std::collections::BTreeMap;

use tokio::task::spawn_blocking;

use super::{state::State, status};
use crate::{
    admin::{
        proto::explain::{Explanation, Explanations, MOST, Packet, Request},
        server::change::{Answer, Answerer, Because, Refused},
    },
    balance::{image::Image, sweep::Reasons},
    causes::with_causes,
    dataplane::{
        explain::{Explainer, Prepared},
        flows::Flows,
        kernel,
    },
    explain::{Case, NamedBackend, NamedService, Names, Told, differences, frame::craft},
};

/// How often a packet is tried on whose way the two homes differ: while traffic flows and tables are
/// published, one may see what the other does not yet.
const TRIES: usize = 5;

/// Everything that explanations are made from.
struct Explaining {
    prepared: Prepared,
    names: Names,
    /// By which interface the packets come in: its index and its name.
    ingress: (u32, String),
    packets: Vec<Packet>,
    /// What packets should follow.
    intended: Option<Image>,
}

impl State {
    /// Answers what would become of packets, later and beside the task.
    pub(super) fn explain(&self, request: Request, answer: Answerer) {
        match self.explaining(request) {
            Ok(explaining) => {
                spawn_blocking(move || {
                    let said = explaining.explain().map(Box::new).map(Answer::Explanations);
                    // Who asked may have gone.
                    let _ = answer.send(said);
                });
            }
            Err(refused) => {
                let _ = answer.send(Err(refused));
            }
        }
    }

    fn explaining(&self, request: Request) -> Result<Explaining, Refused> {
        let attached = self.interfaces();
        let Some(first) = attached.first() else {
            let error = "nothing is attached yet: the first publication waits for first answers of \
                         the backends";
            return Err(Refused::new(Because::Busy, error));
        };
        let ingress = match &request.interface {
            None => first,
            Some(name) => attached.iter().find(|a| a.name == *name).ok_or_else(|| {
                let names: Vec<&str> = attached.iter().map(|a| &*a.name).collect();
                let error = format!(
                    "the program is not attached to {name}: it is to {}",
                    names.join(", ")
                );
                Refused::new(Because::Unknown, error)
            })?,
        };
        if request.packets.len() > MOST {
            let error = format!("at most {MOST} packets are explained at once");
            return Err(Refused::new(Because::Invalid, error));
        }
        Ok(Explaining {
            prepared: self.kernel.explainer().map_err(|e| failed(&e))?,
            names: self.names(),
            ingress: (ingress.index, ingress.name.clone()),
            packets: request.packets,
            intended: self.image.clone(),
        })
    }

    /// What people call what the tables number.
    pub(super) fn names(&self) -> Names {
        let mut names = Names::default();
        for (service, state) in self.config.services.iter().zip(&self.services) {
            let named = NamedService {
                name: service.name.clone(),
                key: service.key,
                mode: service.mode,
                spread: service.options.spread,
                limit: service.options.limit,
            };
            let number = self.numbers.service(&service.key);
            names.services.extend(number.map(|number| (number, named)));
            let ends = self.numbers.of_backends(service).into_iter();
            let backends = service.backends.iter().zip(&state.backends).enumerate();
            let named = backends.map(|(n, (backend, seen))| NamedBackend {
                name: backend.name.clone(),
                health: status::health(seen),
                out_of_ring: self.out_of_ring(service, state, n),
            });
            names.backends.extend(ends.zip(named));
        }
        let hops = self.hops.hops.values().flatten();
        let known: BTreeMap<u32, String> = hops
            .map(|hop| (hop.interface, hop.interface_name.to_string()))
            .collect();
        names.interfaces = known;
        let attached = self.interfaces().iter();
        names
            .interfaces
            .extend(attached.map(|a| (a.index, a.name.clone())));
        names
    }
}

fn failed(error: &kernel::Error) -> Refused {
    Refused::new(Because::Failed, with_causes(error))
}

impl Explaining {
    fn explain(self) -> Result<Explanations, Refused> {
        let frames = self.packets.iter().map(|packet| {
            craft(packet).map_err(|why| Refused::new(Because::Invalid, format!("{packet}: {why}")))
        });
        let frames: Vec<Vec<u8>> = frames.collect::<Result<_, _>>()?;
        let mut desk = Desk {
            explainer: self.prepared.load().map_err(|e| failed(&e))?,
            names: self.names,
            ingress: self.ingress,
            intended: self.intended,
        };
        let mut explanations = Vec::with_capacity(frames.len());
        let mut pairs = self.packets.iter().zip(&frames).peekable();
        let mut in_vain = 0;
        // As long as nobody publishes, all packets are explained by one reading of the tables.
        while pairs.peek().is_some() {
            if in_vain == TRIES {
                let error =
                    "tables are published so fast that none holds for one packet: try again";
                return Err(Refused::new(Because::Busy, error));
            }
            in_vain += 1;
            let image = desk.live()?;
            let reasons = Reasons::of(&image);
            while let Some(&(packet, frame)) = pairs.peek() {
                let Some(explanation) = desk.explain_one(packet, frame, (&image, &reasons))? else {
                    break;
                };
                explanations.push(explanation);
                pairs.next();
                in_vain = 0;
            }
        }
        Ok(Explanations { explanations })
    }
}

/// What all packets are explained with.
struct Desk {
    explainer: Explainer,
    names: Names,
    ingress: (u32, String),
    /// What packets should follow.
    intended: Option<Image>,
}

impl Desk {
    /// What packets follow.
    fn live(&self) -> Result<Image, Refused> {
        let image = self.explainer.image().map_err(|e| failed(&e))?;
        image.ok_or_else(|| Refused::new(Because::Busy, "nothing is published yet"))
    }

    /// Explains a packet by an image; `None` where packets follow another one by now.
    fn explain_one(
        &mut self,
        packet: &Packet,
        frame: &[u8],
        (image, reasons): (&Image, &Reasons<'_>),
    ) -> Result<Option<Explanation>, Refused> {
        let mut found = self.both(frame, image)?;
        for _ in 1..TRIES {
            if found.1.is_empty() {
                break;
            }
            found = self.both(frame, image)?;
        }
        let (kernel, differences) = found;
        if kernel.trail.generation != image.tables.header.generation {
            return Ok(None);
        }
        let case = Case {
            packet,
            interface: &self.ingress.1,
            told: &kernel,
            image,
            reasons,
            names: &self.names,
            now: Flows::now(),
        };
        let explanation = case.explain();
        Ok(Some(Explanation {
            agree: differences.is_empty(),
            differences,
            ..explanation
        }))
    }

    /// What the kernel and the host make of a frame, and where they differ.
    fn both(&mut self, frame: &[u8], image: &Image) -> Result<(Told, Vec<String>), Refused> {
        let failed = |e| failed(&e);
        let (index, _) = self.ingress;
        let kernel = self.explainer.kernel(frame, index).map_err(failed)?;
        let host = self.explainer.host(image, frame, &kernel).map_err(failed)?;
        let mut found = differences(&kernel, &host);
        // Both go by the tables that are there, which somebody may have changed.
        let same = |other: &&Image| other.tables.header.generation == kernel.trail.generation;
        if let Some(intended) = self.intended.as_ref().filter(same) {
            let meant = self
                .explainer
                .host(intended, frame, &kernel)
                .map_err(failed)?;
            let drift = differences(&kernel, &meant).into_iter();
            found.extend(drift.map(|what| format!("by the intended tables, {what}")));
        }
        Ok((kernel, found))
    }
}
