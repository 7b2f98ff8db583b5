//! All about one backend.

use std::path::Path;

use anyhow::Context as _;

use crate::{
    admin::client::Client,
    cli::{
        Answer, change, output,
        service::missing,
        status::{self, Colour},
    },
};

/// Shows a backend that is named as `web/b2`.
///
/// # Errors
/// Where the controller cannot be asked, or the name is of another form.
pub(super) fn show(name: &str, socket: &Path, json: bool) -> anyhow::Result<Answer> {
    let (service, backend) = name.split_once('/').with_context(|| {
        format!(
            "'{name}' is neither a backend, as in web/b2, nor one of drain, disable, enable and \
             weight"
        )
    })?;
    let client = Client::new(socket);
    let status = change::block_on(async { client.status().await })??;
    let Some(of) = status.services.iter().find(|s| s.name == service) else {
        let names = status.services.iter().map(|s| s.name.as_str());
        return Ok(missing(&format!("service {service}"), names));
    };
    let Some(found) = of.backends.iter().find(|b| b.name == backend) else {
        let names = of.backends.iter().map(|b| b.name.as_str());
        return Ok(missing(
            &format!("backend {backend} of service {service}"),
            names,
        ));
    };
    if json {
        change::print_json(found)?;
    } else {
        let view = status::view(Colour::Auto);
        output::print(&status::details::backend(of, found, status.now_ms, view))?;
    }
    Ok(Answer::Yes)
}
