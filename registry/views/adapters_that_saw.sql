-- adapters_that_saw(row_uid): every adapter whose training selected that row.
CREATE MACRO adapters_that_saw(uid) AS TABLE
SELECT taught.adapter_id, taught.selection_id
FROM parquet.stored_bitmaps AS bits
JOIN adapter_selections AS taught ON taught.selection_id = bits.object_id
WHERE bits.chunk = uid // 65536
  AND get_bit(bits.bitmap::BIT, (uid % 65536)::INTEGER) = 1;
