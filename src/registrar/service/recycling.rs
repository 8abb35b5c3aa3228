//! Stale registrations whose number changed hands, as a carrier knows: they are void at once. One
//! in use is never asked about.

use std::sync::{Arc, PoisonError, RwLock};

use crate::https::Sample;
use tokio::task::JoinSet;

use crate::registrar::StoreError;
use crate::registrar::fraud::{Recycling, RecyclingError, Rules, RulesError};
use crate::registrar::registrations::{Core, Stale, Transition};
use crate::registrar::service::shared::Service;

/// Checks at once.
const CHECKS: usize = 16;

/// The carrier that the rules name, if they name one.
pub(crate) struct Carrier(RwLock<Option<Arc<Recycling>>>);

impl Carrier {
    /// Reads its files.
    pub(crate) fn new(rules: &Rules) -> Result<Self, RulesError> {
        Ok(Self(RwLock::new(Recycling::new(rules)?.map(Arc::new))))
    }

    /// Takes up newer rules and files.
    pub(crate) fn reload(&self, rules: &Rules) -> Result<(), RulesError> {
        let newer = match self.get() {
            Some(before) => before.replaced(rules)?,
            None => Recycling::new(rules)?,
        };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = newer.map(Arc::new);
        Ok(())
    }

    pub(crate) fn get(&self) -> Option<Arc<Recycling>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How checks ended, for an exporter; nothing where nobody is asked.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.get().map_or_else(Vec::new, |recycling| recycling.samples())
    }
}

/// Asks about every stale registration of a number, some at once, and ends those whose number
/// changed hands. A carrier that answers none of those some is away: the rest waits for the next
/// time.
pub(crate) async fn ask_about_stale(
    recycling: &Arc<Recycling>,
    service: &Service,
    core: &Core,
) -> Result<(), StoreError> {
    let mut last: Option<Stale> = None;
    loop {
        let mut stale = core.stale(last.as_ref()).await?;
        for some in stale.chunks(CHECKS) {
            if !ask_about(recycling, service, core, some).await? {
                return Ok(());
            }
        }
        match stale.pop() {
            Some(one) => last = Some(one),
            None => return Ok(()),
        }
    }
}

/// Asks about a few; whether the carrier is there.
async fn ask_about(
    recycling: &Arc<Recycling>,
    service: &Service,
    core: &Core,
    stale: &[Stale],
) -> Result<bool, StoreError> {
    let now = service.now();
    let mut checks = JoinSet::new();
    // Addresses have no carrier.
    for one in stale.iter().filter(|one| one.sii.digits().is_some()) {
        let (recycling, id) = (recycling.clone(), one.id.clone());
        let (number, since) = (one.sii.clone(), one.proved_at);
        checks.spawn(async move { (id, recycling.check(&number, since, now).await) });
    }
    let mut is_there = checks.is_empty();
    let mut why = None;
    while let Some(checked) = checks.join_next().await {
        // A panic was logged.
        let Ok((id, answer)) = checked else { continue };
        match answer {
            Ok(is_recycled) => {
                is_there = true;
                if is_recycled && core.recycled(&id, service.now()).await? {
                    service.counters.transitions(Transition::Voided, 1);
                }
            }
            Err(RecyclingError::NotKnown { .. }) => is_there = true,
            Err(error) => why = Some(error),
        }
    }
    if let (false, Some(error)) = (is_there, why) {
        tracing::warn!(%error, "checks for recycled numbers fail; they are put off to tomorrow");
    }
    Ok(is_there)
}
