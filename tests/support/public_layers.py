"""Layers, losses and small networks with a backward pass by hand, in the styles of public code."""

from tests.support.public_recurrent import HEAD, SIGMOID, Pair

TWO_LAYERS = f"""{HEAD}
class TwoLayerNet(object):
    def __init__(self, input_size, hidden_size, output_size, std=0.7):
        self.params = {{}}
        self.params["W1"] = std * np.random.randn(input_size, hidden_size)
        self.params["b1"] = np.zeros(hidden_size)
        self.params["W2"] = std * np.random.randn(hidden_size, output_size)
        self.params["b2"] = np.zeros(output_size)

    def loss(self, X, y=None, reg=0.1):
        W1, b1 = self.params["W1"], self.params["b1"]
        W2, b2 = self.params["W2"], self.params["b2"]
        N, D = X.shape
        hidden = np.maximum(0, X.dot(W1) + b1)
        scores = hidden.dot(W2) + b2
        if y is None:
            return scores
        scores -= np.max(scores, axis=1, keepdims=True)
        probs = np.exp(scores) / np.sum(np.exp(scores), axis=1, keepdims=True)
        loss = np.sum(-np.log(probs[np.arange(N), y])) / N
        loss += reg * (np.sum(W1 * W1) + np.sum(W2 * W2))
        grads = {{}}
        dscores = probs
        dscores[range(N), y] -= 1
        dscores /= N
        grads["W2"] = hidden.T.dot(dscores) + 2 * reg * W2
        grads["b2"] = np.sum(dscores, axis=0)
        dhidden = dscores.dot(W2.T)
        dhidden[hidden <= 0] = 0
        grads["W1"] = X.T.dot(dhidden) + 2 * reg * W1
        grads["b1"] = np.sum(dhidden, axis=0)
        return loss, grads

net = TwoLayerNet(3, 4, 3)
net.loss(np.random.randn(5, 3), np.array([0, 1, 2, 2, 1]))
"""
BATCH_NORM = f"""{HEAD}
def batchnorm_forward(x, gamma, beta, eps=1e-5):
    mu = np.mean(x, axis=0)
    xc = x - mu
    var = np.mean(xc ** 2, axis=0)
    std = np.sqrt(var + eps)
    xhat = xc / std
    out = gamma * xhat + beta
    cache = (gamma, xhat, std)
    return out, cache

def batchnorm_backward(dout, cache):
    gamma, xhat, std = cache
    N = dout.shape[0]
    dbeta = dout.sum(axis=0)
    dgamma = np.sum(dout * xhat, axis=0)
    dxhat = dout * gamma
    dx = (dxhat - dxhat.mean(axis=0) - xhat * np.mean(dxhat * xhat, axis=0)) / std
    return dx, dgamma, dbeta

x, gamma, beta = np.random.randn(4, 3), np.random.randn(3), np.random.randn(3)
"""
LAYER_NORM = BATCH_NORM.replace("batchnorm", "layernorm").replace(
    "axis=0)\n    xc", "axis=1, keepdims=True)\n    xc"
)
LAYER_NORM = LAYER_NORM.replace("xc ** 2, axis=0", "xc ** 2, axis=1, keepdims=True")
LAYER_NORM = LAYER_NORM.replace(
    "dx = (dxhat - dxhat.mean(axis=0) - xhat * np.mean(dxhat * xhat, axis=0)) / std",
    "dx = (dxhat - dxhat.mean(1, keepdims=True)\n"
    "          - xhat * np.mean(dxhat * xhat, 1, keepdims=True)) / std",
)
SOFTMAX_LOOPS = f"""{HEAD}
W, X, y = np.random.randn(3, 4), np.random.randn(5, 3), np.array([0, 3, 1, 2, 1])

def softmax_loss_naive(W, X, y, reg):
    loss, dW = 0.0, np.zeros_like(W)
    for i in range(X.shape[0]):
        scores = X[i].dot(W)
        scores -= np.max(scores)
        p = np.exp(scores) / np.sum(np.exp(scores))
        loss += -np.log(p[y[i]])
        for j in range(W.shape[1]):
            dW[:, j] += (p[j] - (j == y[i])) * X[i]
    loss = loss / X.shape[0] + reg * np.sum(W * W)
    dW = dW / X.shape[0] + 2 * reg * W
    return loss, dW

softmax_loss_naive(W, X, y, 0.05)
"""
HINGE = f"""{HEAD}
W, X, y = np.random.randn(3, 4), np.random.randn(5, 3), np.array([0, 3, 1, 2, 1])

def svm_loss_vectorized(W, X, y, reg):
    num_train = X.shape[0]
    scores = X.dot(W)
    correct = scores[range(num_train), y].reshape(-1, 1)
    margins = np.maximum(0, scores - correct + 1)
    margins[range(num_train), y] = 0
    loss = np.sum(margins) / num_train + reg * np.sum(W * W)
    mask = np.zeros_like(margins)
    mask[margins > 0] = 1
    mask[range(num_train), y] = -np.sum(mask, axis=1)
    dW = X.T.dot(mask) / num_train + 2 * reg * W
    return loss, dW

svm_loss_vectorized(W, X, y, 0.05)
"""
LOGISTIC = f"""{HEAD}{SIGMOID}
def propagate(w, b, X, Y):
    m = X.shape[1]
    A = sigmoid(np.dot(w.T, X) + b)
    cost = -1 / m * np.sum(Y * np.log(A) + (1 - Y) * np.log(1 - A))
    dw = 1 / m * np.dot(X, (A - Y).T)
    db = 1 / m * np.sum(A - Y)
    return {{"dw": dw, "db": db}}, cost

w, b = np.random.randn(3, 1), np.array(0.3)
X, Y = np.random.randn(3, 5), np.array([[1, 0, 1, 1, 0]])
propagate(w, b, X, Y)
"""
DEEP = f"""{HEAD}{SIGMOID}
def linear_activation_forward(A_prev, W, b, activation):
    Z = np.dot(W, A_prev) + b
    A = sigmoid(Z) if activation == "sigmoid" else np.tanh(Z)
    return A, (A_prev, W, A)

def linear_activation_backward(dA, cache, activation):
    A_prev, W, A = cache
    dZ = dA * A * (1 - A) if activation == "sigmoid" else dA * (1 - A ** 2)
    m = A_prev.shape[1]
    return np.dot(W.T, dZ), np.dot(dZ, A_prev.T) / m, np.sum(dZ, axis=1, keepdims=True) / m

def L_model(parameters, X, Y):
    caches, A, L = [], X, len(parameters) // 2
    for l in range(1, L + 1):
        kind = "sigmoid" if l == L else "tanh"
        A, cache = linear_activation_forward(A, parameters["W" + str(l)], parameters["b" + str(l)], kind)
        caches.append(cache)
    m = Y.shape[1]
    cost = np.squeeze(-np.sum(np.multiply(Y, np.log(A)) + np.multiply(1 - Y, np.log(1 - A))) / m)
    grads, dA = {{}}, -(np.divide(Y, A) - np.divide(1 - Y, 1 - A))
    for l in reversed(range(L)):
        kind = "sigmoid" if l == L - 1 else "tanh"
        dA, dW, db = linear_activation_backward(dA, caches[l], kind)
        grads["dW" + str(l + 1)], grads["db" + str(l + 1)] = dW, db
    return cost, grads

sizes, parameters = [2, 3, 3, 1], {{}}
for l in range(1, 4):
    parameters["W" + str(l)] = np.random.randn(sizes[l], sizes[l - 1])
    parameters["b" + str(l)] = np.zeros((sizes[l], 1))
L_model(parameters, np.random.randn(2, 4), np.array([[1, 0, 0, 1]]))
"""
ROLLED = f"""{HEAD}{SIGMOID}
X = np.hstack([np.ones((5, 1)), np.random.randn(5, 2)])
Y = np.eye(3)[[0, 1, 2, 2, 1]]

def nnCostFunction(theta, lam=0.5):
    Theta1 = theta[:9].reshape(3, 3)
    Theta2 = theta[9:].reshape(3, 4)
    a2 = np.c_[np.ones(5), sigmoid(X.dot(Theta1.T))]
    h = sigmoid(a2.dot(Theta2.T))
    J = -np.sum(Y * np.log(h) + (1 - Y) * np.log(1 - h)) / 5
    J += lam / 10 * (np.sum(Theta1[:, 1:] ** 2) + np.sum(Theta2[:, 1:] ** 2))
    delta3 = h - Y
    delta2 = delta3.dot(Theta2)[:, 1:] * a2[:, 1:] * (1 - a2[:, 1:])
    grad1, grad2 = delta2.T.dot(X) / 5, delta3.T.dot(a2) / 5
    grad1[:, 1:] += lam / 5 * Theta1[:, 1:]
    grad2[:, 1:] += lam / 5 * Theta2[:, 1:]
    grad = np.concatenate([grad1.ravel(), grad2.ravel()])
    return J, grad

theta = np.random.randn(21)
"""
SKIP_GRAM = f"""{HEAD}
def naiveSoftmaxLossAndGradient(centerWordVec, outsideWordIdx, outsideVectors):
    scores = outsideVectors @ centerWordVec
    y = np.exp(scores - np.max(scores))
    y /= np.sum(y)
    loss = -np.log(y[outsideWordIdx])
    d = y.copy()
    d[outsideWordIdx] -= 1
    gradCenterVec = outsideVectors.T @ d
    gradOutsideVecs = np.outer(d, centerWordVec)
    return loss, gradCenterVec, gradOutsideVecs

naiveSoftmaxLossAndGradient(np.random.randn(3), 2, np.random.randn(4, 3))
"""
CONVOLUTION = f"""{HEAD}
def conv_forward(x, w, b, stride=1, pad=1):
    N, C, W = x.shape
    F, _, k = w.shape
    xp = np.pad(x, ((0, 0), (0, 0), (pad, pad)), mode="constant")
    out = np.zeros((N, F, 1 + (W + 2 * pad - k) // stride))
    for n in range(N):
        for f in range(F):
            for i in range(out.shape[2]):
                out[n, f, i] = np.sum(xp[n, :, i * stride:i * stride + k] * w[f]) + b[f]
    cache = (x, w, b, stride, pad)
    return out, cache

def conv_backward(dout, cache):
    x, w, b, stride, pad = cache
    k = w.shape[2]
    xp = np.pad(x, ((0, 0), (0, 0), (pad, pad)), mode="constant")
    dxp, dw, db = np.zeros_like(xp), np.zeros_like(w), np.zeros_like(b)
    for n in range(dout.shape[0]):
        for f in range(dout.shape[1]):
            for i in range(dout.shape[2]):
                dw[f] += xp[n, :, i * stride:i * stride + k] * dout[n, f, i]
                dxp[n, :, i * stride:i * stride + k] += w[f] * dout[n, f, i]
                db[f] += dout[n, f, i]
    dx = dxp[:, :, pad:-pad]
    return dx, dw, db

x, w, b = np.random.randn(2, 1, 4), np.random.randn(2, 1, 3), np.random.randn(2)
"""
TIED = f"""{HEAD}{SIGMOID}
class AutoEncoder:
    def __init__(self, n, m):
        self.W, self.b, self.c = np.random.randn(m, n), np.zeros(m), np.zeros(n)

    def forward(self, x):
        self.x = x
        self.h = sigmoid(self.W @ x + self.b)
        self.r = self.W.T @ self.h + self.c
        return 0.5 * np.sum((self.r - x) ** 2)

    def backward(self):
        e = self.r - self.x
        self.dc = e
        dh = (self.W @ e) * self.h * (1 - self.h)
        self.db = dh
        self.dW = np.outer(dh, self.x) + np.outer(self.h, e)

ae = AutoEncoder(4, 3)
ae.forward(np.random.rand(4))
ae.backward()
"""
MODULES = f"""{HEAD}
class Linear:
    def __init__(self, n, m):
        self.W, self.b = np.random.randn(n, m), np.zeros(m)
    def forward(self, x):
        self.x = x
        return x @ self.W + self.b
    def backward(self, d):
        self.dW, self.db = self.x.T @ d, d.sum(0)
        return d @ self.W.T

class Tanh:
    def forward(self, x):
        self.out = np.tanh(x)
        return self.out
    def backward(self, d):
        return d * (1 - self.out ** 2)

class Model:
    def __init__(self):
        self.layers = [Linear(3, 4), Tanh(), Linear(4, 2)]
    def forward(self, x, y):
        for layer in self.layers:
            x = layer.forward(x)
        self.d = x - y
        return 0.5 * np.sum(self.d ** 2)
    def backward(self):
        d = self.d
        for layer in self.layers[::-1]:
            d = layer.backward(d)

model = Model()
model.forward(np.random.randn(5, 3), np.random.randn(5, 2))
model.backward()
"""
RESIDUAL = f"""{HEAD}
x, y = np.random.randn(5, 3), np.random.randn(5, 3)
params = [dict(W=np.random.randn(3, 3), V=np.random.randn(3, 3)) for _ in range(2)]

def loss_and_gradients(params):
    h, tape = x, []
    for p in params:
        a = np.tanh(h @ p["W"])
        tape.append((h, a))
        h = h + a @ p["V"]
    loss = np.mean((h - y) ** 2)
    grads, d = [], 2 * (h - y) / h.size
    for p, (before, a) in zip(params[::-1], tape[::-1]):
        da = d @ p["V"].T * (1 - a ** 2)
        grads.insert(0, dict(W=before.T @ da, V=a.T @ d))
        d = d + da @ p["W"].T
    return loss, grads
"""
ATTENTION = f"""{HEAD}
X, Y = np.random.randn(4, 3), np.random.randn(4, 2)
params = dict(Wq=np.random.randn(3, 2), Wk=np.random.randn(3, 2), Wv=np.random.randn(3, 2))

def attention(params):
    Q, K, V = X @ params["Wq"], X @ params["Wk"], X @ params["Wv"]
    scores = Q @ K.T / np.sqrt(2)
    A = np.exp(scores - scores.max(axis=-1, keepdims=True))
    A = A / A.sum(axis=-1, keepdims=True)
    out = A @ V
    loss = 0.5 * np.sum((out - Y) ** 2)
    dout = out - Y
    dV, dA = A.T @ dout, dout @ V.T
    dscores = A * (dA - np.sum(dA * A, axis=-1, keepdims=True)) / np.sqrt(2)
    dQ, dK = dscores @ K, dscores.T @ Q
    return loss, dict(Wq=X.T @ dQ, Wk=X.T @ dK, Wv=X.T @ dV)
"""
EMBEDDING = f"""{HEAD}
class Classifier:
    def __init__(self, vocab, dim, classes):
        self.E, self.W = np.random.randn(vocab, dim), np.random.randn(dim, classes)

    def loss_and_grads(self, docs, labels):
        loss, grads = 0, {{"E": np.zeros_like(self.E), "W": np.zeros_like(self.W)}}
        for doc, label in zip(docs, labels):
            h = self.E[doc].mean(axis=0)
            s = h @ self.W
            p = np.exp(s) / np.exp(s).sum()
            loss -= np.log(p[label])
            p[label] -= 1
            grads["W"] += np.outer(h, p)
            np.add.at(grads["E"], doc, self.W @ p / len(doc))
        return loss, grads

clf = Classifier(5, 3, 2)
clf.loss_and_grads([[0, 1, 1], [4, 2]], [1, 0])
"""

LAYERED = {
    "a two-layer class with loss(X, y)": Pair(TWO_LAYERS, None, "dhidden[hidden <= 0] = 0", "pass", "activation-derivative-missing", "hidden = np.maximum(0, X.dot(W1) + b1)"),
    "batch normalisation": Pair(BATCH_NORM, "batchnorm_forward,batchnorm_backward", " - dxhat.mean(axis=0)", "", "normalisation-path-missing", "mu = np.mean(x, axis=0)"),
    "layer normalisation": Pair(LAYER_NORM, "layernorm_forward,layernorm_backward", "dgamma = np.sum(dout * xhat", "dgamma = np.sum(dout", "factor-missing", "out = gamma * xhat + beta"),
    "softmax in loops": Pair(SOFTMAX_LOOPS, None, "2 * reg * W", "reg * W", "weight-decay"),
    "hinge loss": Pair(HINGE, None, "mask[range(num_train), y] = -np.sum(mask, axis=1)", "pass", "zero-gradient", "margins = np.maximum(0, scores - correct + 1)"),
    "logistic regression": Pair(LOGISTIC, None, "np.dot(X, (A - Y).T)", "np.dot(X, (Y - A).T)", "sign-flipped"),
    "layers by number": Pair(DEEP, "L_model", "dA * (1 - A ** 2)", "dA * (1 - A)", "activation-derivative-incomplete", 'A = sigmoid(Z) if activation == "sigmoid" else np.tanh(Z)'),
    "a rolled vector": Pair(ROLLED, None, "* a2[:, 1:] * (1 - a2[:, 1:])", "", "activation-derivative-missing", "return 1 / (1 + np.exp(-x))"),
    "skip-gram": Pair(SKIP_GRAM, "naiveSoftmaxLossAndGradient", "d[outsideWordIdx] -= 1", "d[outsideWordIdx] += 1", "sign-flipped", "y /= np.sum(y)", ("centerWordVec", "outsideVectors")),
    "a convolution in loops": Pair(CONVOLUTION, "conv_forward,conv_backward", "db[f] += dout[n, f, i]", "db[f] = dout[n, f, i]", "bias-part-missing", "out[n, f, i] = np.sum(xp[n, :, i * stride:i * stride + k] * w[f]) + b[f]"),
    "tied weights": Pair(TIED, None, " + np.outer(self.h, e)", "", "zero-gradient", "self.r = self.W.T @ self.h + self.c"),
    "layers as objects": Pair(MODULES, "Model", "d * (1 - self.out ** 2)", "d", "activation-derivative-missing", "self.out = np.tanh(x)"),
    "residual layers": Pair(RESIDUAL, None, "d = d + da @", "d = da @", "zero-gradient", "h = h + a @ p[\"V\"]"),
    "attention": Pair(ATTENTION, None, " - np.sum(dA * A, axis=-1, keepdims=True)", "", "softmax-denominator", "A = A / A.sum(axis=-1, keepdims=True)"),
    "an embedding of documents": Pair(EMBEDDING, None, "self.W @ p / len(doc)", "self.W @ p", "factor-missing", "h = self.E[doc].mean(axis=0)"),
}  # fmt: skip
