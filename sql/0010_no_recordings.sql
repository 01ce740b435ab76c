-- Nothing ever wrote these: what terminals showed is kept in files (docs/decisions.md).
DROP TABLE segments;
DROP TABLE recordings;
