//! What is only read: a registration by its application provider, and all mappings of an identifier
//! by its holder.

use crate::discovery::identifier::Identifier;
use crate::discovery::jws::{self, from_base64url};
use crate::discovery::statement::UserKey;
use crate::limits::JWS_BYTES_MAX;
use crate::registrar::Problem;
use crate::registrar::api::{Shown, State};
use crate::registrar::store::StoreError;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;

use crate::registrar::registrations::Core;
use crate::registrar::registrations::change::{Caller, check_id, unknown};
use crate::registrar::registrations::end::in_force;
use crate::registrar::registrations::register::check_clock;
use crate::registrar::registrations::sql::unsigned;
use crate::registrar::registrations::state::{from_number, is_in_force, is_pending};

/// The `typ` of the token with which a user asks for the mappings of an identifier.
pub const MINE_TYP: &str = "sotto-mine+jwt";

/// A mapping of an identifier, as its holder is shown it. It has no `Debug`: it is about a person.
#[derive(Serialize)]
pub struct Mine {
    /// Domain of the application provider.
    pub ap: String,
    /// Its state.
    pub state: State,
    /// Since when.
    pub since: u64,
    /// The mapping.
    pub statement: String,
}

#[derive(Deserialize)]
struct Claims {
    /// The registrar's issuer.
    aud: String,
    /// The identifier as a URI.
    sub: String,
    uk: String,
    iat: u64,
}

impl Core {
    /// A registration of the caller's. Its state is the one that it has now, whether or not a sweep
    /// has been there since its code expired.
    ///
    /// # Errors
    /// There is none of this name, or it is another's; the database does not answer.
    pub async fn show(&self, caller: &Caller<'_>, id: &str, now: u64) -> Result<Shown, Problem> {
        check_id(id)?;
        let query = "SELECT state, since, code_expires_at, statement FROM registrations
            WHERE id = $1 AND ap = $2";
        let row = sqlx::query(query).bind(id).bind(caller.ap);
        let row = row.fetch_optional(self.store.pool()).await.map_err(StoreError::from)?;
        let shown = row.ok_or_else(unknown)?;
        let read = || {
            let state = from_number(shown.try_get(0)?).ok_or(StoreError::Row("a state"))?;
            let since = unsigned(shown.try_get(1)?);
            let expires_at = unsigned(shown.try_get(2)?);
            let statement: Option<String> = shown.try_get(3)?;
            let (state, since) = match is_pending(state) && expires_at <= now {
                true => (State::Expired, expires_at),
                false => (state, since),
            };
            let statement = statement.filter(|_| is_in_force(state));
            Ok::<_, StoreError>(Shown { id: id.to_owned(), state, since, statement })
        };
        Ok(read()?)
    }

    /// Every mapping in force of an identifier, at any application provider, for whoever has the
    /// key of one of them. `token` is a compact JWS of type [`MINE_TYP`] by that key, with the
    /// claims `aud` (the registrar's issuer), `sub` (the identifier as a URI), `uk` and `iat`.
    ///
    /// # Errors
    /// The token is not right, or no mapping has its key; the database does not answer.
    pub async fn mine(&self, token: &str, now: u64) -> Result<Vec<Mine>, Problem> {
        let (sii, key) = self.read_token(token, now)?;
        let sii_mac = self.settings.sii_mac(&sii);
        let mut db = self.store.pool().acquire().await.map_err(StoreError::from)?;
        let all = in_force(&mut db, &sii_mac).await?;
        let mut is_holder = false;
        for one in &all {
            is_holder |= one.has_key(&key)?;
        }
        if !is_holder {
            return Err(unknown());
        }
        let mine = |one: crate::registrar::registrations::end::InForce| Mine {
            ap: one.ap,
            state: one.state,
            since: one.since,
            statement: one.statement,
        };
        Ok(all.into_iter().map(mine).collect())
    }

    fn read_token(&self, token: &str, now: u64) -> Result<(Identifier, UserKey), Problem> {
        let refused = |found: &str| {
            let expected = format!(
                "a compact JWS of type {MINE_TYP} by the user's key, with aud, sub, uk and iat"
            );
            Problem::new(401, "token", found, expected)
        };
        let token = jws::parse(token, MINE_TYP, JWS_BYTES_MAX)
            .map_err(|_| refused("a token of another form"))?;
        let claims = token.payload.as_slice();
        let claims = Some(claims).filter(|claims| claims.starts_with(b"{"));
        let claims: Option<Claims> = claims.and_then(|bytes| serde_json::from_slice(bytes).ok());
        let claims = claims.ok_or_else(|| refused("a token with other claims"))?;
        let key: Option<UserKey> = from_base64url(&claims.uk).and_then(|key| key.try_into().ok());
        let key = key.ok_or_else(|| refused("a uk that is no key"))?;
        let verifying = ed25519_dalek::VerifyingKey::from_bytes(&key);
        let is_signed = verifying.is_ok_and(|verifying| token.verify(&verifying).is_ok());
        if !is_signed {
            return Err(refused("a signature that uk did not make"));
        }
        if claims.aud != self.settings.iss {
            return Err(refused("a token for another registrar"));
        }
        check_clock(claims.iat, now)?;
        let sii = Identifier::from_uri(&claims.sub);
        Ok((sii.map_err(|_| refused("a sub that is no identifier"))?, key))
    }
}
