import type { ButtonHTMLAttributes, ReactNode, Ref } from "react";
import { cx } from "./cx";

type Kind = "primary" | "plain" | "quiet" | "danger" | "allow";
interface Props extends ButtonHTMLAttributes<HTMLButtonElement> {
  kind?: Kind;
  size?: "normal" | "small" | "large";
  busy?: boolean;
  icon?: ReactNode;
  ref?: Ref<HTMLButtonElement>;
}

const KINDS: Record<Kind, string> = {
  primary: "bg-accent-fill text-on-accent hover:bg-accent-hover",
  allow: "bg-accent-fill text-on-accent hover:bg-accent-hover",
  plain: "bg-panel text-text border border-line-strong/60 hover:bg-hover",
  quiet: "text-muted hover:bg-hover hover:text-text",
  danger: "bg-panel text-bad border border-line-strong/60 hover:bg-bad-soft",
};
const SIZES = { small: "h-7 px-2 text-[13px] gap-1", normal: "h-8.5 px-3 gap-1.5", large: "h-12 px-4 gap-2 text-base" };

/** Busy keeps its width and place, and does nothing a second time. */
export function Button({ kind = "plain", size = "normal", busy, icon, className, children, disabled, type = "button", ...rest }: Props) {
  return (
    <button
      type={type}
      {...rest}
      disabled={disabled}
      aria-disabled={busy || undefined}
      aria-busy={busy || undefined}
      onClick={busy ? (e) => e.preventDefault() : rest.onClick}
      className={cx(
        "inline-flex shrink-0 items-center justify-center rounded-md font-medium whitespace-nowrap transition-colors",
        "disabled:opacity-55",
        KINDS[kind],
        SIZES[size],
        busy && "opacity-70",
        className,
      )}
    >
      {icon}
      {children}
    </button>
  );
}

/** An icon alone has a name that is read out and shown. */
export function IconButton({ label, className, children, ref, ...rest }: ButtonHTMLAttributes<HTMLButtonElement> & { label: string; ref?: Ref<HTMLButtonElement> }) {
  return (
    <button
      ref={ref}
      type="button"
      aria-label={label}
      title={label}
      {...rest}
      className={cx("inline-flex size-8 shrink-0 items-center justify-center rounded-md text-muted hover:bg-hover hover:text-text disabled:opacity-55", className)}
    >
      {children}
    </button>
  );
}
