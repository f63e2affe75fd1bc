SET LOCAL lock_timeout = '5s';

-- A batch of clicks is written shard by shard (links with even and with odd ids), each in a transaction of its own: 1 and 2.
-- 0 is a whole batch, as releases before this one write it, also while both run; they take a batch that has any row here
-- for done.
ALTER TABLE click_batches ADD COLUMN shard smallint NOT NULL DEFAULT 0;
ALTER TABLE click_batches DROP CONSTRAINT click_batches_pkey, ADD PRIMARY KEY (id, shard);

-- Rows that are clicked at the same time stand beside each other, and each group of clicks changes many of a page. A new
-- version that finds no room in its page needs entries in every index, of `urls` the one for text included.
ALTER TABLE urls SET (fillfactor = 75);
ALTER TABLE click_hours SET (fillfactor = 60);
ALTER TABLE click_days SET (fillfactor = 75);
ALTER TABLE click_days_by_value SET (fillfactor = 80);
