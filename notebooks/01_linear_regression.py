# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 · Linear regression
#
# **The question:** which line fits the data best, how sure is the arithmetic, and does pulling
# the parameters towards zero make the predictions better?
#
# After this notebook you can
#
# 1. write the mean squared error as a surface and find its lowest point without any iteration;
# 2. say how many digits the normal equations and QR lose, and choose between them;
# 3. measure on held-out data whether ridge regression helps or hurts, and leave the intercept out.
#
# Runs in about 1 minute on a CPU; allow an hour to work through. A GPU changes nothing here.
#
# ## Symbols
#
# | symbol | code | meaning | unit |
# |---|---|---|---|
# | $n$, $d$ | `len(y)`, `X.shape[1] - 1` | examples, features | – |
# | $x$, $y$ | `areas`, `prices` | what we know, what we predict | m², price units |
# | $X$ | `X` | design matrix, shape $(n, 1+d)$, first column ones | as the features |
# | $\theta$ | `theta` | parameters: intercept $\theta_0$, then slopes | $y$, $y$ per feature |
# | $r = y - X\theta$ | `residuals` | what the fit leaves over | as $y$ |
# | MSE, RMSE | `mse`, its root | mean squared error, and its square root | $y^2$, $y$ |
# | $\kappa$ | `np.linalg.cond` | condition number: largest over smallest singular value | – |
# | $\lambda$ | `lam` | strength of the ridge penalty | $y^2/\theta^2$: none if standardised |
# | $s_j$ | `s` | singular values of the centred features | as the features |

# %% tags=["imports"]
import ipywidgets
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_squared_error
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from helpers import runtime
from helpers.claims import verdict
from helpers.exercises import check, hint, solution
from helpers.plots import COLORS, contours, interval, label, panels
from helpers.widgets import explore, picture, series

# %% tags=["config"]
SEED = 1
AREAS = np.arange(100, 1001, 100)  # m²: ten houses
PRICE_PER_AREA = 2  # price units per m²: the true slope; the true intercept is 0
ARTICLE_THETA = np.array([500.0, 200.0])  # what the article says the fit is
ARTICLE_TABLE = np.array([1700.0, 16500.0])  # what it predicts at the smallest and largest area
ARTICLE_LAM = 0.01
GUESS = np.array([300.0, 1.0])  # a line that is wrong on purpose
GAPS = 10.0 ** -np.arange(1, 6.6, 0.5)  # how far two columns differ, for the condition number
N_TRIALS = 100  # random problems per gap
N_FIT, N_HELD = 300, 142  # patients to fit on, patients held out
N_SMALL = 20  # the small training set
LAMBDAS = 10.0 ** np.arange(-3, 2.1, 0.25)
LAM = 1.0  # the one penalty that is tried on both training sets
N_SPLITS = 200  # random splits into fitted and held-out patients
rng = runtime.setup(SEED)

# %% [markdown]
# ## Ten houses
#
# The first of the two articles that the course tests (chapter 00) fits house prices by area. Its
# ten points lie exactly on $y = 2x$. We read the areas as square metres; the prices have no unit,
# so we call them price units.

# %%
areas = AREAS.astype(float)
prices = PRICE_PER_AREA * areas
print("area ", AREAS)
print("price", prices.astype(int))

# %% [markdown]
# **Predict first.** Which line goes through these points? The article says that its fit ends near
# $\theta_0 = 500$, $\theta_1 = 200$. What would a house of 100 m² cost by that line? Write both
# answers down before you go on.
#
# ## One number for how bad a line is
#
# Put a one before each area, and the intercept becomes a parameter like the slope:
#
# $$X = \begin{pmatrix} 1 & x_1 \\ \vdots & \vdots \\ 1 & x_n \end{pmatrix}, \qquad
# \hat y = X\theta, \qquad
# \mathrm{MSE}(\theta) = \frac1n \sum_{i=1}^n (\hat y_i - y_i)^2 .$$
#
# In words: predict, subtract, square, average.

# %% tags=["essential"]
def design_matrix(x):
    features = np.asarray(x, dtype=float)
    if features.ndim == 1:
        features = features[:, None]
    return np.hstack([np.ones((len(features), 1)), features])


def mse(theta, X, y):
    return np.mean((X @ theta - y) ** 2)


# %% tags=["check"]
X = design_matrix(areas)
assert np.array_equal(X, PolynomialFeatures(1).fit_transform(areas[:, None]))
assert np.isclose(mse(GUESS, X, prices), mean_squared_error(prices, X @ GUESS))
print(f"X has shape {X.shape}; design matrix and MSE agree with scikit-learn")

# %%
for name, theta in (("truth", np.array([0, 2])), ("all zero", np.zeros(2)),
                    ("guess", GUESS), ("article", ARTICLE_THETA)):
    error = mse(theta, X, prices)
    print(f"{name:8}  θ = {theta!s:12}  MSE {error:14,.0f}   RMSE {error**0.5:9,.1f} price units")

# %% [markdown]
# The square root (RMSE) has the unit of a price, so it is the one to read. The article's line is
# worse than no line at all: "all zero" has the far smaller error.
#
# ## The lowest point, without searching
#
# The MSE is a quadratic bowl in $\theta$. At its lowest point the gradient is zero:
#
# $$\nabla \mathrm{MSE}(\theta) = \frac2n X^\top (X\theta - y) = 0
# \quad\Longrightarrow\quad X^\top X\,\theta = X^\top y .$$
#
# On the right stand the **normal equations**: two equations for our two unknowns. They say that
# the residuals are orthogonal to every column of $X$. (The 2 comes from the square. The
# article leaves it out; chapter 02 shows where that matters.)

# %% tags=["essential"]
def mse_gradient(theta, X, y):
    return 2 / len(y) * X.T @ (X @ theta - y)


def normal_equations(X, y):
    return np.linalg.solve(X.T @ X, X.T @ y)


# %% tags=["check"]
h = 1e-3
by_differences = [(mse(GUESS + step, X, prices) - mse(GUESS - step, X, prices)) / (2 * h)
                  for step in h * np.eye(2)]
assert np.allclose(mse_gradient(GUESS, X, prices), by_differences, rtol=1e-5)
noisy = prices + rng.normal(0, 100, len(prices))
assert np.allclose(normal_equations(X, noisy), np.polyfit(areas, noisy, 1)[::-1])
print("gradient agrees with finite differences, normal equations with np.polyfit")

# %%
theta_best = np.round(normal_equations(X, prices), 6) + 0.0  # + 0.0 turns -0 into 0
curvature = np.linalg.eigvalsh(2 / len(prices) * X.T @ X)
side0, side1 = np.linspace(-1000, 1000, 200), np.linspace(-1, 5, 200)
predicted = side0[None, :, None] + side1[:, None, None] * areas  # (200, 200, n)
rmse_surface = np.sqrt(np.mean((predicted - prices) ** 2, axis=-1))
print(f"lowest point: θ0 = {theta_best[0]:.3f}, θ1 = {theta_best[1]:.3f}")
print(f"curvature of the bowl: {curvature[0]:.3f} along its floor, {curvature[1]:.3g} across")

# %%
left, right = panels(2, "Every line is a point on the error surface")
left.plot(areas, prices, "o", label="houses")
left.plot(areas, X @ theta_best, label="lowest point")
left.plot(areas, X @ GUESS, "--", label="guess")
left.vlines(areas, X @ GUESS, prices, color="grey", linewidth=1, label="residuals of the guess")
label(left, "area (m²)", "price (units)", "lines")
contours(right, side0, side1, rmse_surface).plot(*theta_best, "o", label="lowest point")
right.plot(*GUESS, "s", label="guess")
right.locator_params(axis="x", nbins=5)
_ = label(right, "intercept θ0 (price units)", "slope θ1 (units per m²)", "RMSE, log levels")

# %% [markdown]
# **Reading.** The bowl is a narrow valley that runs from top left to bottom right: a larger
# intercept is nearly made up for by a smaller slope. The printed curvatures say how narrow: across
# the valley the surface bends more than a million times as sharply as along it. A method that
# walks downhill will feel this in chapter 02. There is one lowest point and no other, so wherever
# a walk starts, if it arrives at all, it arrives there. The article's point lies far off this map.
#
# ## The article's fit (K1) and its predictions (K2)

# %% tags=["verdict"]
rmse_article = mse(ARTICLE_THETA, X, prices) ** 0.5
verdict("K1", holds=np.allclose(ARTICLE_THETA, theta_best, rtol=0.1, atol=1),
        measured=f"the least-squares fit is θ0 = {theta_best[0]:.3g}, θ1 = {theta_best[1]:.3g} "
                 f"with RMSE {mse(theta_best, X, prices) ** 0.5:.3g}; the article's line has RMSE "
                 f"{rmse_article:,.0f} price units. Where its descent goes is chapter 02.",
        theta0=theta_best[0], theta1=theta_best[1], rmse_article=rmse_article)

# %% tags=["verdict"]
ends = areas[[0, -1]]
formula = design_matrix(ends) @ ARTICLE_THETA
for x, y, by_formula, by_table in zip(ends, prices[[0, -1]], formula, ARTICLE_TABLE, strict=True):
    print(f"x = {x:4.0f}: data {y:5.0f}, formula 500 + 200x {by_formula:7.0f}, "
          f"article's table {by_table:6.0f}")
factor = formula / ARTICLE_TABLE
follows_data = np.allclose(ARTICLE_TABLE, prices[[0, -1]], rtol=0.1)
verdict("K2", holds=np.allclose(ARTICLE_TABLE, formula, rtol=0.01),
        measured=f"its formula gives {formula[0]:.0f} and {formula[1]:.0f}, {factor[0]:.3g} and "
                 f"{factor[1]:.3g} times the table, which "
                 f"{'follows' if follows_data else 'does not follow'} the data either.",
        at_100=formula[0], at_1000=formula[1], factor=factor[0])

# %% [markdown]
# ## A safer way: QR
#
# Suppose two columns are almost the same, say area in m² and area measured again by someone else.
# Then many $\theta$ fit almost equally well. The **condition number** $\kappa(X)$ measures this,
# and forming $X^\top X$ squares it: $\kappa(X^\top X) = \kappa(X)^2$. Rounding errors grow with it.
#
# QR avoids $X^\top X$. Write $X = QR$, with orthonormal columns in $Q$ and $R$ upper triangular.
# The normal equations become $R\,\theta = Q^\top y$, and $\kappa(R) = \kappa(X)$, not squared. If
# the columns are linearly dependent, no single $\theta$ is best, and the function says so.

# %% tags=["essential"]
def least_squares(X, y):
    Q, R = np.linalg.qr(X)
    if np.linalg.matrix_rank(R) < X.shape[1]:
        raise ValueError("the columns of X are linearly dependent: no unique least-squares fit")
    return np.linalg.solve(R, Q.T @ y)


# %% tags=["check"]
X_random, y_random = design_matrix(rng.normal(size=(50, 4))), rng.normal(size=50)
reference = np.linalg.lstsq(X_random, y_random, rcond=None)[0]
assert np.allclose(least_squares(X_random, y_random), reference, rtol=1e-10)
assert np.allclose(least_squares(X, noisy), normal_equations(X, noisy))
print(f"least squares by QR agrees with np.linalg.lstsq; κ(X) of the houses is "
      f"{np.linalg.cond(X):.4g}, κ(XᵀX) {np.linalg.cond(X.T @ X):.4g}")

# %% [markdown]
# Now make the two columns ever more alike. Each random problem has a known $\theta$ and no noise,
# so every difference from it is rounding. We keep the median of many problems.
#
# If the error is a power law, $c\,\kappa^k$, it is a straight line on log–log axes. The tool to
# find $k$ is on the table: fit a line to the logarithms. This is the first power law of the
# course. Its interval is ± 2 standard errors; their squares are the diagonal of
# $\hat\sigma^2 (X^\top X)^{-1}$, with $\hat\sigma^2$ the sum of squared residuals over $n - 2$.

# %%
def rounding_errors(gap):
    """κ(X) and the error of both methods, for columns 1, z, z + gap · w and a known θ."""
    z, w = rng.normal(size=(2, 50))
    X, truth = design_matrix(np.column_stack([z, z + gap * w])), rng.normal(size=3)
    return (np.linalg.cond(X), *(np.linalg.norm(solve(X, X @ truth) - truth)
                                 for solve in (normal_equations, least_squares)))


kappa, error_normal, error_qr = np.array(
    [np.median([rounding_errors(gap) for _ in range(N_TRIALS)], axis=0) for gap in GAPS]).T

# %%
def exponent(x, y):
    """Slope of log y against log x, with the ends of its interval (± 2 standard errors)."""
    X, target = design_matrix(np.log(x)), np.log(y)
    theta = least_squares(X, target)
    variance = mse(theta, X, target) * len(y) / (len(y) - 2)
    se = np.sqrt(variance * np.linalg.inv(X.T @ X)[1, 1])
    return theta[1], theta[1] - 2 * se, theta[1] + 2 * se


k_normal, k_qr = exponent(kappa, error_normal), exponent(kappa, error_qr)
print(f"error ∝ κ^{k_normal[0]:.1f} with the normal equations, κ^{k_qr[0]:.1f} with QR")

# %%
(ax,) = panels()
ax.plot(kappa, error_normal, "o-", label=f"normal equations, exponent {interval(*k_normal, 2)}")
ax.plot(kappa, error_qr, "s-", label=f"QR, exponent {interval(*k_qr, 2)}")
_ = label(ax, "condition number κ(X) (no unit)", "distance from the true θ (no unit)",
          "Rounding error of two ways to the same θ", log="xy")

# %% [markdown]
# **Reading.** Each factor of ten in $\kappa$ costs QR one digit and the normal equations two, as
# the exponents say. numpy's numbers (float64) carry about 16 digits, so the normal equations have
# none left near $\kappa = 10^8$, and they give no warning. One caution: these problems have no
# noise. With large residuals, QR's error also gets a part that grows as $\kappa^2$, scaled by the
# residuals' size.
#
# **Exercise 01.1.** Read off the figure: at $\kappa = 10^k$ the error of the normal equations
# reaches $10^{-6}$. Return $k$.

# %% tags=["exercise"]
def digits_spent():
    """The k at which the error of the normal equations reaches 1e-6 for κ = 10^k."""
    return NotImplemented


# %% tags=["exercise-check"]
check("01.1", digits_spent)
# hint("01.1")
# solution("01.1")

# %% [markdown]
# ## Real data
#
# Real points do not lie on a line. scikit-learn ships the diabetes data of Efron, Hastie,
# Johnstone and Tibshirani (2004): ten measurements of each patient, and a score of how far the
# disease has progressed one year later. We fit on some patients and judge on the others.
#
# Age is in years and blood pressure in mmHg, so the raw slopes cannot be compared. We
# **standardise**: subtract a column's mean, divide by its standard deviation. Mean and deviation
# come from the patients we fit on. The held-out ones must not tell us anything beforehand.

# %% tags=["essential"]
def standardise(x, reference):
    return (x - reference.mean(axis=0)) / reference.std(axis=0)


# %% tags=["check"]
features, score = load_diabetes(return_X_y=True, scaled=False)
scaler = StandardScaler().fit(features[:N_FIT])
assert np.allclose(standardise(features[N_FIT:], features[:N_FIT]),
                   scaler.transform(features[N_FIT:]))
print(f"{len(score)} patients, {features.shape[1]} features; standardise agrees with scikit-learn")

# %%
def split(n_fit, rng):
    """X and y of n_fit random patients to fit on, and of N_HELD others held out."""
    order = rng.permutation(len(score))
    fit, held = order[:n_fit], order[-N_HELD:]
    return (design_matrix(standardise(features[fit], features[fit])), score[fit],
            design_matrix(standardise(features[held], features[fit])), score[held])


X_fit, y_fit, X_held, y_held = split(N_FIT, rng)
theta_ols = least_squares(X_fit, y_fit)
theta_mean = np.zeros_like(theta_ols)
theta_mean[0] = y_fit.mean()  # the fit that knows nothing but the mean score
for name, theta in (("mean only", theta_mean), ("least squares", theta_ols)):
    print(f"{name:13}  RMSE on the fitted {mse(theta, X_fit, y_fit) ** 0.5:.1f}, "
          f"on the held-out {mse(theta, X_held, y_held) ** 0.5:.1f} points of the score")

# %%
residuals = y_fit - X_fit @ theta_ols
by_prediction = np.argsort(X_fit @ theta_ols)
low, high = by_prediction[: N_FIT // 4], by_prediction[-N_FIT // 4 :]
print(f"largest |Xᵀr|/n: {np.abs(X_fit.T @ residuals).max() / N_FIT:.6f}")
print(f"spread of r: {residuals[low].std():.1f} in the quarter with the lowest predictions, "
      f"{residuals[high].std():.1f} in the highest")
(ax,) = panels()
ax.plot(X_fit @ theta_ols, residuals, "o", markersize=4, label="fitted patients")
ax.plot(X_held @ theta_ols, y_held - X_held @ theta_ols, "^", markersize=4, label="held out")
ax.axhline(0, color="black", linewidth=1)
_ = label(ax, "predicted score (points)", "residual (points)",
          "What ten features leave unexplained")

# %% [markdown]
# **Reading.** On the fitted patients the residuals are orthogonal to every column, as the normal
# equations demand. In particular they average to zero, because one column is all ones. So a good
# average says nothing about the fit. The *spread* does: it is wider on the right, so one RMSE for
# all patients is too pessimistic for some and too optimistic for others. The held-out triangles
# mix with the dots: 11 parameters are few for 300 patients.
#
# **Exercise 01.2.** RMSE has a unit. The share of variance explained has none:
#
# $$R^2 = 1 - \frac{\sum_i (y_i - \hat y_i)^2}{\sum_i (y_i - \bar y)^2} .$$

# %% tags=["exercise"]
def r_squared(theta, X, y):
    """Share of the variance of y (n,) that the predictions X θ explain: at most 1."""
    return NotImplemented


# %% tags=["exercise-check"]
check("01.2", r_squared)
# hint("01.2")
# solution("01.2")

# %% [markdown]
# ## Ridge: a price on large parameters
#
# L2 regularisation, or **ridge**, adds a price on the size of the slopes:
#
# $$J(\theta) = \frac1n \lVert X\theta - y\rVert^2 + \lambda \sum_{j\ge1} \theta_j^2
# = \frac1n \left\lVert \begin{pmatrix} X \\ \sqrt{n\lambda}\,P \end{pmatrix}\theta
# - \begin{pmatrix} y \\ 0 \end{pmatrix} \right\rVert^2 .$$
#
# $P$ is the identity with a zero in place of the intercept's one. So ridge is plain least squares
# with one made-up example per slope, which asks for that slope to be zero. Conventions differ:
# scikit-learn's `alpha` is our $n\lambda$. By the usual one $\theta_0$ is not penalised.
# The article penalises it too; the last argument does that.

# %% tags=["essential"]
def ridge(X, y, lam, penalise_intercept=False):
    if lam < 0:
        raise ValueError(f"lam={lam}: expected a penalty of 0 or more")
    penalty = np.full(X.shape[1], np.sqrt(len(y) * lam))
    if not penalise_intercept:
        penalty[0] = 0
    rows = np.vstack([X, np.diag(penalty)])
    return least_squares(rows, np.concatenate([y, np.zeros(X.shape[1])]))


# %% tags=["check"]
free = Ridge(alpha=N_FIT * LAM).fit(X_fit[:, 1:], y_fit)
assert np.allclose(ridge(X_fit, y_fit, LAM), [free.intercept_, *free.coef_])
penalised = Ridge(alpha=N_FIT * LAM, fit_intercept=False).fit(X_fit, y_fit)
assert np.allclose(ridge(X_fit, y_fit, LAM, penalise_intercept=True), penalised.coef_)
print("ridge agrees with scikit-learn, with a free and with a penalised intercept")

# %%
for penalise in (False, True):
    theta = np.round(ridge(X, prices, ARTICLE_LAM, penalise), 4) + 0.0
    print(f"houses, λ = {ARTICLE_LAM}, intercept {'penalised' if penalise else 'free':9}: "
          f"θ0 = {theta[0]:.3f}, θ1 = {theta[1]:.3f}")

# %% [markdown]
# The article's λ moves its fit by less than these digits show. Its penalty does not explain K1.
#
# ## Shrinkage, in closed form
#
# One centred feature first. Least squares gives the slope $S_{xy}/S_{xx}$, with $S$ the sums of
# centred products. Ridge gives $S_{xy}/(S_{xx} + n\lambda)$: the same, times
# $S_{xx}/(S_{xx} + n\lambda) < 1$. With several features the same holds along each principal
# direction $j$ of the centred features, whose singular value is $s_j$:
#
# $$f_j = \frac{s_j^2}{s_j^2 + n\lambda} .$$
#
# A direction in which the data vary much (large $s_j$) is hardly touched. One in which they vary
# little, where least squares guesses, is shrunk most.

# %% tags=["essential"]
def shrinkage(X, lam):
    s = np.linalg.svd(X[:, 1:] - X[:, 1:].mean(axis=0), compute_uv=False)
    return s**2 / (s**2 + len(X) * lam)


# %% tags=["check"]
U = np.linalg.svd(X_fit[:, 1:], full_matrices=False)[0]  # the columns of X_fit are centred
expected = y_fit.mean() + U @ (shrinkage(X_fit, LAM) * (U.T @ y_fit))
assert np.allclose(X_fit @ ridge(X_fit, y_fit, LAM), expected)
assert np.allclose(shrinkage(X_fit, 0), 1)
print("predictions from the shrinkage factors equal those of ridge")

# %%
for lam in (0, 0.01, 0.1, 1, 10):
    theta, f = ridge(X_fit, y_fit, lam), shrinkage(X_fit, lam)
    print(f"λ = {lam:<4}  length of the slopes {np.linalg.norm(theta[1:]):5.1f}   "
          f"factors {f.max():.3f} … {f.min():.3f}   slope of s3 {theta[7]:6.2f}")
print(f"correlation of s1 and s2: {np.corrcoef(X_fit[:, 5], X_fit[:, 6])[0, 1]:.2f}")
(ax,) = panels()
path = np.array([ridge(X_fit, y_fit, lam)[1:] for lam in LAMBDAS])
for name, column in zip(("s1", "s2", "s3", "bmi"), path[:, [4, 5, 6, 2]].T, strict=True):
    ax.plot(LAMBDAS, column, label=f"slope of {name}")
ax.plot(LAMBDAS, np.linalg.norm(path, axis=1), "k--", label="length of all ten slopes")
_ = label(ax, "penalty λ (no unit)", "slope (points per standard deviation)",
          "Ridge shrinks the whole, not every part", log="x")

# %% [markdown]
# **Reading.** "L2 makes the parameters smaller" is true of their length, the dashed line: it only
# falls. It is not true of each parameter. The blood values s1 and s2 (total and LDL cholesterol)
# rise and fall together, so least squares gives them large slopes of opposite sign. Ridge dissolves
# that pair first. Then s3 (HDL) takes over: its slope changes sign and *grows* before it shrinks.
#
# **Exercise 01.3.** Derive the gradient of $J(\theta) = \mathrm{MSE}(\theta) + \lambda
# \sum_{j\ge1}\theta_j^2$. Chapter 02 walks down such gradients.
#
# **Exercise 01.4.** A parameter that is shrunk to a tenth is hardly a parameter. Count the
# *effective* ones: each direction counts as its factor $f_j$, the free intercept as one.

# %% tags=["exercise"]
def ridge_gradient(theta, X, y, lam):
    """Gradient (1 + d,) of J in θ; column 0 of X is ones, and the intercept is not penalised."""
    return NotImplemented


# %% tags=["exercise-check"]
check("01.3", ridge_gradient)
# hint("01.3")
# solution("01.3")

# %% tags=["exercise"]
def effective_parameters(X, lam):
    """Effective number of parameters of a ridge fit with free intercept: 1 to 1 + d."""
    return NotImplemented


# %% tags=["exercise-check"]
check("01.4", effective_parameters)
# hint("01.4")
# solution("01.4")

# %% [markdown]
# ## Does it reduce overfitting?
#
# **Predict first.** We take the same penalty, λ = 1, twice: once with 20 patients to fit on, once
# with 300. The held-out patients are judged as always. For each case: does the held-out error
# fall, stay or rise against λ = 0? And what happens if the intercept is penalised as well?
# Write down four answers.

# %%
def error_curves(n_fit, penalise_intercept):
    """RMSE for N_SPLITS splits: (splits, λ = 0 and LAMBDAS, 2), last axis fitted and held out."""
    rng, curves = np.random.default_rng(SEED), []
    for _ in range(N_SPLITS):
        X_a, y_a, X_b, y_b = split(n_fit, rng)
        thetas = [ridge(X_a, y_a, lam, penalise_intercept) for lam in (0, *LAMBDAS)]
        curves.append([(mse(t, X_a, y_a), mse(t, X_b, y_b)) for t in thetas])
    return np.sqrt(curves)


errors = {(n, penalise): error_curves(n, penalise)
          for n in (N_SMALL, N_FIT) for penalise in (False, True)}
at = 1 + int(np.argmin(np.abs(LAMBDAS - LAM)))  # place of λ = LAM; place 0 is λ = 0
for (n, penalise), e in errors.items():
    fit, held = np.median(e, axis=0).T
    better = np.sum(e[:, at, 1] < e[:, 0, 1])
    print(f"{n:3} patients, intercept {'penalised' if penalise else 'free':9}: fitted "
          f"{fit[0]:.1f} → {fit[at]:.1f}, held out {held[0]:.1f} → {held[at]:.1f}; "
          f"better in {better} of {N_SPLITS} splits")

# %%
for ax, n in zip(panels(2, f"Median of {N_SPLITS} splits, band: 10th to 90th percentile"),
                 (N_SMALL, N_FIT), strict=True):
    for place, name in ((0, "fitted"), (1, "held out")):
        free = errors[n, False][:, 1:, place]
        ax.plot(LAMBDAS, np.median(free, axis=0), color=COLORS[place], label=name)
        ax.fill_between(LAMBDAS, *np.percentile(free, (10, 90), axis=0), alpha=0.2)
        ax.axhline(np.median(errors[n, False][:, 0, place]), color=COLORS[place], linestyle=":")
    held = np.median(errors[n, True][:, 1:, 1], axis=0)
    ax.plot(LAMBDAS, held, "--", color=COLORS[2], label="held out, intercept penalised")
    _ = label(ax, "penalty λ (no unit)", "RMSE (points)", f"{n} patients fitted", log="x")
    ax.set_ylim(20, 140)

# %% [markdown]
# **Reading.** Dotted lines are λ = 0. The fitted error only rises with λ, always: that is what a
# price on the parameters costs. The held-out error does what the data ask for. With 20 patients
# for 11 parameters, least squares follows the noise, and λ = 1 takes away more noise than signal.
# With 300 patients there is little noise to take away, and the same λ removes signal. The dashed
# line is the article's convention: it pulls the *average* prediction towards zero, and a score of
# zero is nothing special. The larger λ, the more this costs, until it eats the whole gain.
#
# The 200 splits share patients, so the band shows how splits differ, not a confidence interval.

# %% tags=["verdict"]
gain = {key: np.median(e[:, 0, 1]) - np.median(e[:, at, 1]) for key, e in errors.items()}
helps = [gain[N_SMALL, False] > 0, gain[N_FIT, False] > 0]
shorter = np.all(np.diff(np.linalg.norm(path, axis=1)) < 0)
growing = np.sum(np.any(np.diff(np.abs(path), axis=0) > 0, axis=0))
verdict("K4", holds=bool(helps[0]) if helps[0] == helps[1] else None,
        measured=f"as λ grows, the length of the slopes {'always' if shorter else 'not always'} "
                 f"falls, yet {growing} of {path.shape[1]} slopes grow on part of the way. From "
                 f"λ = 0 to {LAM:g}, the held-out RMSE changes by {-gain[N_SMALL, False]:+.3g} "
                 f"points with {N_SMALL} patients and by {-gain[N_FIT, False]:+.2g} with {N_FIT}; "
                 f"with the intercept penalised too, by {-gain[N_SMALL, True]:+.3g} and "
                 f"{-gain[N_FIT, True]:+.3g}.",
        gain_small=round(gain[N_SMALL, False], 1), gain_large=round(gain[N_FIT, False], 1))

# %% [markdown]
# **Exercise 01.5.** The best λ in the figure was read off held-out patients. In real life they
# must stay unseen until the end, so λ is chosen *inside* the training set. Cut it into folds:
# example $i$ belongs to fold $i \bmod k$. Fit on all folds but one, judge on that one, average the
# MSE over the folds, and return the λ with the lowest average. Use `ridge` and `mse`.

# %% tags=["exercise"]
def choose_lambda(X, y, lambdas, n_folds):
    """The entry of `lambdas` with the lowest mean held-out MSE over n_folds folds."""
    return NotImplemented


# %% tags=["exercise-check"]
check("01.5", choose_lambda)
# hint("01.5")
# solution("01.5")

# %% [markdown]
# ## Play
#
# First, find the fit by hand. Start on the view with the houses, get the error low, then look at
# the surface: the rings are lines of equal RMSE. Try to go down by moving one slider at a time.
# Second, move λ along both curves. Where is the best λ for 20 patients, where for 300?

# %% tags=["widget"]
def fit_picture(intercept, slope, view):
    error = mse(np.array([intercept, slope]), X, prices)
    text = f"MSE {error:,.0f}, RMSE {error**0.5:,.1f} price units"
    if view == "houses":
        ends = np.array([0, 1100])
        return picture([series("points", areas, prices, "houses"),
                        series("line", ends, intercept + slope * ends, "your line")],
                       "area (m²)", "price (units)", (0, 1100), (-1000, 4000), "Ten houses",
                       text=text)
    turn = np.linspace(0, 2 * np.pi, 200)
    ring = np.linalg.solve(np.linalg.cholesky(X.T @ X / len(X)).T, [np.cos(turn), np.sin(turn)])
    rings = [series("line", *(theta_best[:, None] + r * ring), f"RMSE {r}", color)
             for r, color in ((100, 9), (200, 0), (400, 7))]
    return picture([*rings, series("points", [intercept], [slope], "your line", 1)],
                   "intercept θ0 (price units)", "slope θ1 (units per m²)", (-1000, 1000), (-1, 5),
                   "The error surface", text=text)


explore(fit_picture,
        intercept=ipywidgets.FloatSlider(300, min=-1000, max=1000, step=10,
                                         description="intercept"),
        slope=ipywidgets.FloatSlider(1, min=-1, max=5, step=0.05, description="slope"),
        view=ipywidgets.Dropdown(options=["houses", "surface"], description="view"))

# %% tags=["widget"]
def ridge_picture(lam, n, intercept):
    fit, held = np.median(errors[n, intercept == "penalised"], axis=0).T
    now = [np.interp(np.log(lam), np.log(LAMBDAS), curve[1:]) for curve in (fit, held)]
    drawn = [series("line", LAMBDAS, fit[1:], "fitted", 0),
             series("line", LAMBDAS, held[1:], "held out", 1),
             series("dash", LAMBDAS[[0, -1]], held[[0, 0]], "held out, λ = 0", 7),
             series("points", [lam, lam], now, "your λ", 2)]
    return picture(drawn, "penalty λ (no unit)", "RMSE (points)", (1e-3, 1e2), (20, 180),
                   f"{n} patients fitted", log="x",
                   text=f"RMSE {now[0]:.1f} fitted, {now[1]:.1f} held out points; "
                        f"held out without penalty {held[0]:.1f}")


explore(ridge_picture,
        lam=ipywidgets.FloatLogSlider(1, base=10, min=-3, max=2, step=0.05,
                                      description="penalty λ"),
        n=ipywidgets.Dropdown(options=[("20", 20), ("300", 300)], value=20, description="patients"),
        intercept=ipywidgets.Dropdown(options=["free", "penalised"], description="intercept"))

# %% [markdown]
# ## Recap
#
# - The MSE of a linear model is a bowl with one lowest point, where the residuals are orthogonal to
#   every column. The ten houses have it at θ = (0, 2), so K1's fit and K2's table are wrong.
# - QR loses one digit per factor of ten in the condition number, the normal equations two.
# - Judge a fit on examples it has not seen, prepared with the training set's mean and deviation.
# - Ridge is least squares with made-up rows. It shrinks most where the data say least. Whether that
#   helps depends on how much data there is (K4). Leave the intercept out.
#
# **Limits.** One small data set of patients, one penalty, squared error only. The best λ moves with
# the data. Nothing here says which feature *causes* the disease to progress.
#
# **Read next.** Chapter 02 goes down the same bowl by steps, and finds out why the article's step
# size cannot work. On the side: Hastie, Tibshirani and Friedman, *The Elements of Statistical
# Learning*, chapter 3; Trefethen and Bau, *Numerical Linear Algebra*, lectures 11, 18 and 19.
