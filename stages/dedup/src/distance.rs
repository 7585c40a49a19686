//! The distance of semantic duplicates, where `--eps` is not given.
//!
//! The scale of cosine similarities depends on the embedder, so the embedder states the distance that
//! fits it: `eps` in its spec, which the receipts of the step that embeds carry.

use sluice_harness::{ChosenSetting, Context};
use sluice_manifest::{ABOUT_EPS, Error, InputOf, Receipt, Result, Unit, UnitKind};

use crate::arguments::Eps;

/// The distance within which images are duplicates.
pub(crate) struct Distance {
    pub eps: Eps,
    /// Who gave it.
    pub because: String,
}

/// Returns the distance that was given, or the one that the embedder states, and reports the latter.
///
/// # Errors
/// Data, when the embeddings that `fit` read are gone or state no valid distance.
pub(crate) fn distance(
    given: Option<Eps>,
    context: &Context,
    fitted: &Receipt,
) -> Result<Distance> {
    if let Some(eps) = given {
        let because = "--eps".to_owned();
        return Ok(Distance { eps, because });
    }
    let embedded = embedded(context, fitted)?;
    let model = embedded.settings["model"]["name"].as_str();
    let model = model.unwrap_or("unknown").to_owned();
    let (eps, because, hint) = match embedded.about.get(ABOUT_EPS) {
        Some(stated) => {
            let eps = stated.parse().map_err(|e| {
                Error::data(format!("{}: eps {stated:?}: {e}", embedded.step))
                    .hint("run the step that embeds again with --force")
            })?;
            (eps, format!("stated by the embedder {model}"), None)
        }
        None => (
            Eps::USUAL,
            format!("CLIP's, for the embedder {model} states none"),
            Some(format!(
                "compare values with `sluice try --run {} --eps 0.05`, then give --eps, or state eps in \
                the embedder's model.toml",
                context.run.location()
            )),
        ),
    };
    let choice = ChosenSetting {
        value: eps.to_string().parse().unwrap_or_default(),
        because: because.clone(),
        hint,
    };
    context.report_choice(ABOUT_EPS, choice);
    Ok(Distance { eps, because })
}

/// Returns the first receipt of the step whose embeddings were fitted.
fn embedded(context: &Context, fitted: &Receipt) -> Result<Receipt> {
    let step = fitted.inputs.iter().find_map(|input| match &input.of {
        InputOf::Units { step, .. } => Some(step),
        _ => None,
    });
    let step = step.ok_or_else(|| Error::data("the receipt of fit names no embeddings"))?;
    context.required_receipt(step, Unit::once(UnitKind::Partition))
}
