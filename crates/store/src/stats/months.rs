//! Folding the values of past months, so that statistics of long ranges read one row instead of thirty.

use crate::observe::observe_query;
use chrono::NaiveDate;

use linnet_domain::Subject;

use super::super::{Store, StoreError};

impl Store {
    /// Folds the next month that ended at least a week ago, and returns its first day. `None` if no month is due.
    ///
    /// After a week no batch of clicks can be delivered again. A click that is written later still counts in the
    /// totals, but not in the values. Concurrent calls fold a month once.
    pub async fn fold_click_month(&self) -> Result<Option<NaiveDate>, StoreError> {
        let mut transaction = self.begin().await?;
        // A month of many links takes seconds.
        sqlx::query!("SET LOCAL statement_timeout = '10min'").execute(&mut *transaction).await?;
        let statement = sqlx::query_scalar!(
            r#"WITH next AS (
                 SELECT COALESCE((SELECT max(month) + interval '1 month' FROM click_months),
                                 (SELECT date_trunc('month', min(day)::timestamp) FROM click_days
                                   WHERE subject = $1)) AS month
               ), claimed AS (
                 INSERT INTO click_months (month)
                 SELECT month::date FROM next
                  WHERE month + interval '1 month 7 days' <= now() AT TIME ZONE 'UTC'
                 ON CONFLICT DO NOTHING
                 RETURNING month
               ), folded AS (
                 INSERT INTO click_months_by_value (subject, month, value_id, clicks)
                 -- No join, because its condition would not be pushed down through the view to the
                 -- tables, and every row of them would be read.
                 SELECT subject, (SELECT month FROM claimed), value_id, sum(clicks)
                   FROM click_totals_by_value
                  WHERE day >= (SELECT month FROM claimed)
                    AND day < (SELECT (month + interval '1 month')::date FROM claimed)
                    AND EXISTS (SELECT FROM claimed)
                  GROUP BY subject, value_id
               )
               SELECT month FROM claimed"#,
            Subject::Service.key()
        );
        let month =
            observe_query("fold_click_month", statement.fetch_optional(&mut *transaction)).await?;
        transaction.commit().await?;
        Ok(month)
    }

    /// Reverts the folding of the month of `day` and of all later months, so that clicks can be written into the past.
    pub async fn unfold_click_months(&self, day: NaiveDate) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        // Prevents concurrent folding.
        sqlx::query!("LOCK TABLE click_months IN SHARE ROW EXCLUSIVE MODE")
            .execute(&mut *transaction)
            .await?;
        sqlx::query!(
            "DELETE FROM click_months_by_value WHERE month >= date_trunc('month', $1::date::timestamp)",
            day
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!(
            "DELETE FROM click_months WHERE month >= date_trunc('month', $1::date::timestamp)",
            day
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }
}
