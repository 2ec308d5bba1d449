-- rows_that_taught(adapter_id): every row that an adapter was trained on, and why. A prefix of the
-- id is enough.
CREATE MACRO rows_that_taught(adapter) AS TABLE
SELECT taught.adapter_id, picked.*
FROM adapter_selections AS taught
JOIN selected_rows AS picked ON picked.selection_id = taught.selection_id
WHERE starts_with(taught.adapter_id, adapter);
