import { type ReactNode, useEffect, useRef, useState, useSyncExternalStore } from "react";

const NAME = "muster.split";
const WIDE = "(min-width: 64rem)";

export function useWide(): boolean {
  return useSyncExternalStore(
    (fn) => {
      const media = matchMedia(WIDE);
      media.addEventListener("change", fn);
      return () => media.removeEventListener("change", fn);
    },
    () => matchMedia(WIDE).matches,
  );
}

const kept = () => {
  const n = Number(localStorage.getItem(NAME));
  return n >= 20 && n <= 80 ? n : 46;
};

/** Two halves and the line between them, which stays where it was put. */
export function Split({ left, right }: { left: ReactNode; right: ReactNode }) {
  const [percent, set] = useState(kept);
  const box = useRef<HTMLDivElement>(null);
  const [moving, move] = useState(false);
  useEffect(() => {
    try {
      localStorage.setItem(NAME, String(Math.round(percent)));
    } catch {
      // It is as it is until the page is left.
    }
  }, [percent]);
  const to = (n: number) => set(Math.min(80, Math.max(20, n)));
  return (
    <div ref={box} className="flex min-h-0 flex-1">
      <div className="min-w-0" style={{ width: `${percent}%` }}>
        {left}
      </div>
      <div
        role="separator"
        aria-label="Width of the conversation"
        aria-orientation="vertical"
        aria-valuemin={20}
        aria-valuemax={80}
        aria-valuenow={Math.round(percent)}
        tabIndex={0}
        onKeyDown={(e) => {
          if (e.key === "ArrowLeft") to(percent - 2);
          else if (e.key === "ArrowRight") to(percent + 2);
          else if (e.key === "Home") to(46);
        }}
        onDoubleClick={() => to(46)}
        onPointerDown={(e) => {
          e.currentTarget.setPointerCapture(e.pointerId);
          move(true);
        }}
        onPointerMove={(e) => {
          const rect = box.current?.getBoundingClientRect();
          if (moving && rect) to(((e.clientX - rect.left) / rect.width) * 100);
        }}
        onPointerUp={() => move(false)}
        onPointerCancel={() => move(false)}
        className="relative w-px shrink-0 cursor-col-resize touch-none bg-line after:absolute after:inset-y-0 after:-left-1.5 after:w-3 hover:bg-accent focus-visible:bg-accent"
      />
      <div className="min-w-0 flex-1">{right}</div>
    </div>
  );
}
