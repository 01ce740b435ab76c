import { useVirtualizer } from "@tanstack/react-virtual";
import { type ReactNode, useEffect, useRef } from "react";

interface Props<T> {
  items: T[];
  rowHeight: number;
  keyOf(item: T): string;
  row(item: T, index: number): ReactNode;
  label: string;
  /** The row that the keyboard is on. */
  current?: number;
  onEnd?(): void;
  className?: string;
  foot?: ReactNode;
}

/** Only the rows that are seen exist. */
export function VirtualList<T>({ items, rowHeight, keyOf, row, label, current, onEnd, className, foot }: Props<T>) {
  const box = useRef<HTMLDivElement>(null);
  const rows = useVirtualizer({
    count: items.length,
    getScrollElement: () => box.current,
    estimateSize: () => rowHeight,
    getItemKey: (i) => keyOf(items[i]!),
    overscan: 12,
  });
  const seen = rows.getVirtualItems();
  const last = seen.at(-1)?.index ?? -1;
  useEffect(() => {
    if (last >= 0 && last >= items.length - 20) onEnd?.();
  }, [last, items.length, onEnd]);
  useEffect(() => {
    if (current !== undefined && current >= 0 && current < items.length) rows.scrollToIndex(current, { align: "auto" });
    // Only when the keyboard moves: not when the list grows.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [current]);
  useEffect(() => rows.measure(), [rowHeight, rows]);
  return (
    <div ref={box} className={className}>
      <ul aria-label={label} className="relative" style={{ height: rows.getTotalSize() }}>
        {seen.map((v) => (
          <li key={v.key} aria-setsize={items.length} aria-posinset={v.index + 1} className="absolute inset-x-0 top-0" style={{ height: v.size, transform: `translateY(${v.start}px)` }}>
            {row(items[v.index]!, v.index)}
          </li>
        ))}
      </ul>
      {foot}
    </div>
  );
}
