-- One line an edge: the child was made from the parent, which played this role.
CREATE VIEW lineage AS
SELECT edges.child, child.kind AS child_kind, edges.role, edges.parent,
       parent.kind AS parent_kind, child.created_at
FROM edges
JOIN objects AS child ON child.id = edges.child
LEFT JOIN objects AS parent ON parent.id = edges.parent
ORDER BY child.created_at, edges.child, edges.role, edges.parent;
