//! Preferences: which service a person wants to be reached at first, signed by the key of one of
//! their mappings. Which one counts among several keys is decided where records are made.

use crate::discovery::jws::base64url;
use crate::discovery::statement::{Preference, Statement};
use crate::registrar::Problem;
use crate::registrar::api::NewPreference;
use crate::registrar::store::Failed;
use sha2::{Digest as _, Sha256};
use sqlx::{AnyConnection, Row as _};

use crate::registrar::registrations::Core;
use crate::registrar::registrations::change::{Caller, Done, Prepared, malformed};
use crate::registrar::registrations::end::in_force;
use crate::registrar::registrations::sql::{WITHHOLD, bigint, lock_sii, made, unsigned};

impl Core {
    pub(crate) fn prepare_preference(
        &self,
        request: &NewPreference,
        now: u64,
    ) -> Result<Prepared, Problem> {
        let Statement::Preference(preference) =
            self.read(&request.statement, &self.last_directory(), now)?
        else {
            return Err(malformed("a statement of another kind", "a preference"));
        };
        // In the one form in which it is written here, whatever stands between its members.
        let line = preference.to_line();
        let sii_mac = self.settings.sii_mac(&preference.sub);
        Ok(Prepared::Prefer { preference, line, sii_mac })
    }

    /// Stores a preference in place of the one that the same key made before.
    pub(crate) async fn prefer(
        &self,
        db: &mut AnyConnection,
        caller: &Caller<'_>,
        preference: &Preference,
        line: &str,
        sii_mac: &str,
        now: u64,
    ) -> Result<Done, Failed> {
        lock_sii(&mut *db, sii_mac).await?;
        // Only the caller's own: what the reply says depends on no other registration.
        let mut registration = None;
        for one in in_force(&mut *db, sii_mac).await? {
            if one.ap == caller.ap && one.has_key(&preference.user.key)? {
                registration = Some(one.id);
            }
        }
        let Some(registration) = registration else {
            let found = "a preference by a key that is in no mapping of this provider in force";
            let expected = "the uk of a mapping of this identifier; register first";
            return Err(Problem::new(409, "preference_key", found, expected).into());
        };
        let name = base64url(&Sha256::digest(line.as_bytes()));
        let find = "SELECT name, made_at FROM preferences WHERE registration = $1 AND ended_at = 0";
        let query = sqlx::query(find).bind(registration.as_str());
        for row in query.fetch_all(&mut *db).await? {
            let before: String = row.try_get(0)?;
            if before == name {
                return Ok(Done::json(200, &serde_json::json!({})));
            }
            if unsigned(row.try_get(1)?) >= preference.time {
                let found = "a preference no later than the one before";
                let expected = "a preference that the user signs now";
                return Err(Problem::new(409, "preference_old", found, expected).into());
            }
            let update =
                format!("UPDATE preferences SET ended_at = $1, {WITHHOLD} WHERE name = $2");
            let update = sqlx::query(made(update)).bind(bigint(now)).bind(before);
            update.execute(&mut *db).await?;
        }
        // The line may be there since an earlier registration with this key.
        let insert = "INSERT INTO preferences (name, registration, region, made_at, line, feed)
            VALUES ($1, $2, $3, $4, $5, 1)
            ON CONFLICT (name) DO UPDATE SET registration = $2, region = $3, ended_at = 0,
                feed = CASE preferences.feed WHEN 0 THEN 1 WHEN 3 THEN 2
                    ELSE preferences.feed END";
        sqlx::query(insert)
            .bind(name)
            .bind(registration.as_str())
            .bind(self.settings.region.clone().unwrap_or_default())
            .bind(bigint(preference.time))
            .bind(line)
            .execute(db)
            .await?;
        let done = Done::json(200, &serde_json::json!({}));
        Ok(Done { id: Some(registration), ..done })
    }
}
