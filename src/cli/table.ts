export type TableRow = readonly [label: string, value: string];

/** Two aligned columns, one row a line, without a newline at the end. */
export function formatTable(rows: readonly TableRow[]): string {
  const width = Math.max(0, ...rows.map(([label]) => label.length));
  return rows.map(([label, value]) => `  ${label.padEnd(width)}  ${value}`).join("\n");
}
